"""One reviewer at work: the queue and the state of the panel."""
