from art_mmc.attacks.auto_attack import AutoAttackStandard as AutoAttackStandard
from art_mmc.attacks.auto_pgd import AutoPGD as AutoPGD
from art_mmc.attacks.carlini import CarliniL2 as CarliniL2
from art_mmc.attacks.fast_adaptive_boundary import FastAdaptiveBoundary as FastAdaptiveBoundary
from art_mmc.attacks.gaussian_noise import GaussianNoise as GaussianNoise
from art_mmc.attacks.random_rotation import RandomRotation as RandomRotation
from art_mmc.attacks.scheduled_pgd import ScheduledPGD as ScheduledPGD
from art_mmc.attacks.spsa import SPSA as SPSA
