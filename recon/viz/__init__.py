"Figures, live plots, mesh viewers, the data explorer."
