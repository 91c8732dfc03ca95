"""What to do about each kind of finding, in words."""

ADVICE = {
    "split-unreadable": "correct this first: nothing of the split could be checked",
    "image-missing": "add the files, or train with --set train.skip_missing=true",
    "image-broken": "replace the files or take them out of the annotations: training would stop",
    "image-large": "shrink the files: more than 100 million pixels are refused",
    "image-entry": "correct the entries under images",
    "image-twice": "give every image an id of its own",
    "annotation-entry": "correct the entries under annotations, or take them out",
    "annotation-twice": "give every annotation an id of its own",
    "category-entry": "correct the entries under categories",
    "category-twice": "give every category an id of its own",
    "category-name-twice": "give every category a name of its own, or merge the two",
    "label-file": "save the files as UTF-8 text",
    "line": "correct these lines, or take them out",
    "xml-file": "correct these files, or take them out",
    "xml-object": "correct these objects, or take them out",
    "size-differs": "boxes are taken in pixels of the file; if the image was resized or turned "
    "after it was annotated, they lie wrong: look at the contact sheet",
    "box-negative": "corners were probably swapped; these boxes are not learned",
    "box-empty": "these boxes are not learned; take them out or draw them again",
    "box-outside": "these boxes are not learned; if they are many, the images were resized or "
    "cropped after they were annotated",
    "box-clipped": "harmless if they are few: what is inside is learned",
    "box-twice": "take the copies out: the detector is taught to find one object twice",
    "box-tiny": "boxes under two pixels are hardly more than a slip of the mouse",
    "box-whole": "boxes as large as their image teach little; are these labels of whole images?",
    "box-fractions": "multiply x and width by the image's width, y and height by its height",
    "box-corners": "COCO's bbox is x, y, width, height; these seem to be two corners",
    "box-lost": "train at a larger size: --set preprocess.short=... --set preprocess.long=...",
    "classes-none": "name the classes; without any there is nothing to learn",
    "boxes-none": "add boxes: a detector cannot learn from images alone",
    "boxes-none-here": "scores are undefined without boxes",
    "class-unused": "take the classes out, or add boxes: the detector cannot learn them",
    "class-untrained": "move some images with these classes into train "
    "(leandetr data split deals them evenly)",
    "class-unknown-here": "add the classes to the training split, or rename them as they are there",
    "class-rare": "add examples: ten boxes are few to learn a class from",
    "class-uneven": "expect low AP of the rare classes; leandetr evaluate shows AP by class",
    "class-alike": "if they are the same, give them one name",
    "class-odd": "names are kept as they are; rename them if this was not meant",
    "class-number": "the names look like ids; put real names in, they are stored with the model",
    "image-empty": "kept as examples of background; if they do hold objects, annotate them",
    "image-crowded": "give the model more queries: --set queries.count=...",
    "image-listed-twice": "list every image once",
    "image-copies": "take the copies out, they only weigh more",
    "leak": "take the copies out of one split: scores on images seen in training mean nothing",
    "leak-near": "look at the pairs; if they are copies or neighbours of a video, keep them in "
    "one split",
    "leak-origin": "they are augmented copies of one picture; split before augmenting",
    "image-unlisted": "files without annotations are not used; annotate them or move them away",
    "train-none": "training asks for the split train; rename one, or: leandetr data split",
    "val-none": "training cannot choose its best model; make one: leandetr data split",
}
"""By the kind of finding."""

COUNTED_FROM = (
    "the {end} class is never used: ids seem to be counted from {start}; {shift} every id"
)
"""For ids off by one."""
