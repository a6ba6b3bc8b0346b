"""The hidden-mismodelling study: does a robust tagger generalise better to data, when one knows what the data are?

`advtag study CONFIG` simulates, trains, evaluates, measures, looks at the truth, and compares, in this order:

    samples    files of `simulation`, made where missing; columns and scores of every jet through the processors
    jets       what an analysis has: scores, regions, weights; flavours of simulation alone
    counts     jets that pass, by pt and flavour, in every replica of the bootstrap
    methods    scale factors as an analysis measures them, from these counts
    fit        the same from a fit of the vertex mass
    truth      the one room that knows the flavours of the data; nothing above it imports it
    agreement  data/MC of the discriminators
    conclude   measured against true, robust taggers against the nominal one
"""
