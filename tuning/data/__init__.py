"""From a row of any usual data set to token ids with labels, all of it counted; knows no model."""
