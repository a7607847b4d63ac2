"Networks: normal predictor, image encoder, neural fields, feature lookup."
