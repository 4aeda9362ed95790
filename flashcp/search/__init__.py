"""The search behind `auto`: placements of documents, whole or cut anywhere, over the ranks.

    weights    what a placement costs, as numbers for compiled code
    state      pieces of documents on ranks: linked, listed, moved and moved back
    loads      what a piece and a document's exchange add to their ranks
    energy     how good the loads of all ranks are together
    seed       a first placement: longest documents first, giants cut in equal work
    moves      draws moves between two ranks
    anneal     better placements by such moves, with a budget of steps
    repair     exactly equal tokens
    placement  all of these in turn
    nodes      ranks that exchange much, on one node
    evaluate   predicted times of finished placements, as `flashcp.prediction` would give them

All of it is integer or order-fixed float arithmetic in compiled code, so every machine makes the
same plan.
"""
