"""Where a model errs: an analysis of the predictions of a test, as numbers, figures and drawn images."""
