"""Cost, speed and inner workings of networks."""
