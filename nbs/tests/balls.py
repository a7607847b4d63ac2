"A data set of coloured balls and a model small enough that a training step takes hundredths of a second."
import torch
from recon.data.writer import ball_subject, write_index, write_subject
from recon.training.loop import TrainOptions, Trainer

TINY = dict(preset="paper", nrm_channels=4, nrm_downsamplings=2, nrm_blocks=1, encoder_channels=16, color_channels=16, feat_dim=4, hidden_dim=16, num_layers=3, skip=(2,),
            rgb_hidden_dim=8, image_size=32, num_samples=64, batch_size=2, epochs=2, lr_warmup_steps=2, log_every=1)


def make_balls(folder, names="abcd", size=32, points=300, views=4):
    "The dataset file; every ball has colours of its own."
    folder.mkdir(parents=True, exist_ok=True)
    for k, name in enumerate(names):
        subject, body = ball_subject(name, subdivisions=2)
        subject.colors = (subject.colors + torch.rand(3, generator=torch.Generator().manual_seed(k))) / 2
        write_subject(folder/"balls"/f"{name}.h5", subject, body, views=views, size=size, points=points)
    write_index(folder/"balls.h5", [folder/"balls"/f"{name}.h5" for name in names], body, dict(train=list(names)))
    return folder/"balls.h5"


def trainer(data, folder, step=2, **options):
    return Trainer(TrainOptions.resolve(TINY | dict(data_root=str(data), save_root=str(folder), exp_name="run") | options), step, torch.device("cpu"))
