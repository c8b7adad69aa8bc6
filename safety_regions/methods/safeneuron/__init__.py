"""SafeNeuron: how much each neuron matters for each prompt, by the effect of removing it."""
