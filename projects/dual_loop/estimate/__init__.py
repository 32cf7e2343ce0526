"""What a run costs, without a GPU: a step of the real code on tensors that have sizes and no memory."""
