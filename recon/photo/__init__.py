"A photo to a cut-out figure and its keypoints."
