"""Networks: standardised inputs and their presence in, logits out.

Each is built with the feature card, the number of classes and its parameters, and is called with two tensors
[jets, inputs of the card]: standardised values, absent ones at their place, and which of them are present, bool. It
returns logits [jets, classes].
"""

from torch import nn

from models.networks.deepcsv import DeepCSV
from models.networks.deepjet import DeepJet
from models.networks.particle_transformer import ParticleTransformer
from models.networks.particlenet import ParticleNet

NETWORKS: dict[str, type[nn.Module]] = {
    "deepcsv": DeepCSV,
    "deepjet": DeepJet,
    "particlenet": ParticleNet,
    "particle_transformer": ParticleTransformer,
}
