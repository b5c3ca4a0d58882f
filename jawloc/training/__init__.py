"""Making a locator: network, data set, loop."""
