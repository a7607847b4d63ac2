"From fields and meshes to files: surfaces, textures, skeletons, GLB."
