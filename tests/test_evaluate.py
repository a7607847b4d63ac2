"Two folders of meshes measured from the command line."
import json

import pytest
import trimesh


def test_folders_are_paired_by_id(tmp_path, capsys):
    from recon.evaluate import cli
    sizes = {"b": .5, "a": .4}
    for name, radius in sizes.items():   # results in two formats, scans in folders of their own; orders differ
        ball = trimesh.creation.icosphere(3, radius)
        (tmp_path/"scans"/name).mkdir(parents=True)
        (tmp_path/"results").mkdir(exist_ok=True)
        ball.export(tmp_path/"scans"/name/f"{name}.obj")
        ball.apply_scale(1.02).export(tmp_path/"results"/f"{name}.{'ply' if name == 'a' else 'glb'}")
    command = ["-i", str(tmp_path/"results"), "-g", str(tmp_path/"scans"), "--protocol", "exact", "--save", str(tmp_path/"m.json")]
    cli(command)
    found = json.loads((tmp_path/"m.json").read_text())
    for name, radius in sizes.items(): assert abs(found["people"][name]["p2s"] - .02*radius) < 5e-4
    assert "over 2 pairs; protocol exact" in capsys.readouterr().out
    (tmp_path/"results"/"a.ply").unlink()
    with pytest.raises((ValueError, SystemExit)): cli(command)
