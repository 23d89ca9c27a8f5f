"""`dia-server fidelity`: what a cheaper dtype of Dia's weights costs, compared with fp32 on the same weights.

Dia in fp32 speaks texts. Dia in the other dtype is run over the same tokens, and what it would sample in each
column is compared. Then it speaks the texts freely with the same seeds. `comparison` imports torch.
"""
