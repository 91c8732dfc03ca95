"""How good a detector is: COCO scores (`coco`) and the walk over a data set (`evaluate`)."""
