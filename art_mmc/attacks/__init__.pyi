from art_mmc.attacks.carlini import CarliniL2 as CarliniL2
from art_mmc.attacks.gaussian_noise import GaussianNoise as GaussianNoise
from art_mmc.attacks.random_rotation import RandomRotation as RandomRotation
from art_mmc.attacks.spsa import SPSA as SPSA
