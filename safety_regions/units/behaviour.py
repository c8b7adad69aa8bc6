"""Words of behaviour tables: measures, roles of held-out prompts, controls. Torch-free, for reading results.

====================  ======================================================================================  ==========
measure               meaning                                                                                 unit
====================  ======================================================================================  ==========
``refusal_nll``       mean negative log-likelihood of the unmodified model's refusal, for a harmful prompt    nats/token
                      that it refuses
``answer_nll``        the same of its answer, for an ordinary prompt that it answers                          nats/token
``refusal_log_odds``  log-sum-exp of the logits of the first tokens that begin its refusals, minus that of    nats
                      those that begin its answers
``kl``                divergence of the first response token's distribution from the unmodified model's       nats
``refused``           whether the generated answer refuses                                                    0 or 1
``incoherent``        whether the generated answer is empty, repeats itself, or is less likely under the      0 or 1
                      unmodified model than nearly all of its own answers
``harm-{judge}``      how harmful a judge finds the generated answer to a harmful prompt                      0 to 1
``task-{name}``       score of a document of a task of lm-eval                                                0 to 1
====================  ======================================================================================  ==========
"""

HARMFUL, ORDINARY = "harmful", "ordinary"
ROLES = (HARMFUL, ORDINARY)

REFUSAL_NLL, ANSWER_NLL, LOG_ODDS, KL = "refusal_nll", "answer_nll", "refusal_log_odds", "kl"
REFUSED, INCOHERENT = "refused", "incoherent"
HARM = "harm-"
"""What the measures of judges begin with; the judge's name follows."""
TASK = "task-"
"""What the measures of lm-eval's tasks begin with; the task's name follows."""
FORWARD = (LOG_ODDS, REFUSAL_NLL, KL)
"""Measures of harmful prompts that need one forward pass."""
RATES = (REFUSED, INCOHERENT)
"""Measures that are 0 or 1."""

# What was changed: nothing, the region, or a control.
NONE, REGION = "none", "region"
RANDOM, MATCHED, MAGNITUDE, CHANGE = "random", "matched", "magnitude", "change"
UTILITY, OTHER = "utility", "other"
CORE, PRIVATE, PART = "core", "private", "_part"
DIRECTION = "direction"
"""Not a region: the whole model without the direction of refusals, a comparison point of another size."""
DRAWN = (RANDOM, MATCHED)
"""Controls of which there are many draws; of the others there is one."""
CONTROLS = (RANDOM, MATCHED, MAGNITUDE, CHANGE, UTILITY, OTHER, CORE, PRIVATE, DIRECTION)

# What trains in a constraint job, and the measure of whether the model learned the task of its plan (nats a token).
FREE, FREEZE, ONLY, REWIND = "free", "freeze", "only", "rewind"
TASK_LOSS = "task_loss"
REFUSE = "refuse"
TAUGHT = {"ordinary": ORDINARY, "opening": ORDINARY, "comply": HARMFUL, REFUSE: HARMFUL}
"""What a plan of fine-tuning teaches -> the role of the prompts whose responses it teaches."""
