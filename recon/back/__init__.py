"The back that no camera saw: conditions from the body, three generators, their training and their measure."
