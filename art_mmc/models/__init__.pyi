from art_mmc.models.backbones import BACKBONES as BACKBONES
from art_mmc.models.backbones import create_backbone as create_backbone
from art_mmc.models.base import wrap_backbone as wrap_backbone
from art_mmc.models.network import DefendedNet as DefendedNet
from art_mmc.models.network import Normalize as Normalize
