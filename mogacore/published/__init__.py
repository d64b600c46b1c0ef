"""Published facts as data: sizes of the networks, weight files, results of the paper."""
