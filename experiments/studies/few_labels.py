"""Every method on digits with few labels: how much does each help?

The shared recipe was chosen for networks that learn alone (`few_labels_recipe`); every method keeps
the options of its own config. AFD and alignment also have a feature optimizer, and AFD and AI-KD a
discriminator optimizer: Adam, 1e-4, cosine (assumed).
"""

import functools

import ml_collections

from experiments.studies import digits
from experiments.studies.few_labels_recipe import base
from experiments.study.plan import Block, Claim, Setting, Study

PAIR = "resnet8,resnet14"
TEACHER = ("independent@resnet14",)


def recipe(config: ml_collections.ConfigDict, seed: int, *, labels: int) -> None:
    """The recipe that all settings share."""
    digits.few_labels(config, seed, labels=labels, choose=False)
    base(config)
    adam(config)


def adam(config: ml_collections.ConfigDict) -> None:
    """The optimizers of features and discriminators; assumed."""
    for update in ("feature", "discriminator"):
        optimizer = config.optimizers[update]
        optimizer.name, optimizer.learning_rate, optimizer.weight_decay = "adam", 1e-4, 0.0
        optimizer.schedule = {"name": "cosine"}


INDEPENDENT = Setting("independent", f"cifar100_independent:{PAIR}")
LOGITS = Setting("logits only", f"cifar100_afd:{PAIR}", {"method.adversarial_weight": 0.0})
AFD = Setting("AFD", f"cifar100_afd:{PAIR}")
DML = Setting("DML", f"cifar100_dml:{PAIR}")
ONE = Setting("ONE", "cifar100_one:resnet8")
KD = Setting("KD", "cifar100_kd:resnet8,resnet14", teachers=TEACHER)

ALL = (
    INDEPENDENT,
    LOGITS,
    Setting("adversarial only", f"cifar100_afd:{PAIR}", {"method.distillation_weight": 0.0}),
    AFD,
    Setting("L1", f"cifar100_alignment:{PAIR}", {"method.distillation_weight": 0.0}),
    Setting("L1+KD", f"cifar100_alignment:{PAIR}"),
    Setting("L2+KD", f"cifar100_alignment:{PAIR}", {"method.distance": "l2"}),
    DML,
    Setting("DCM", f"cifar100_dcm:{PAIR}", {"method.depth": 2}),
    Setting("MCL", f"cifar100_mcl:{PAIR}"),
    Setting("KDCL, minlogit", f"cifar100_kdcl:{PAIR}"),
    Setting("KDCL, linear", f"cifar100_kdcl:{PAIR}", {"method.target": "linear"}),
    Setting("SwitOKD", f"cifar100_switokd:{PAIR}"),
    ONE,
    Setting("CL-ILR", "cifar100_cl_ilr:resnet8"),
    Setting("OKDDip", "cifar100_okddip:resnet8"),
    Setting("PCL", "cifar100_pcl:resnet8"),
    KD,
    Setting("LSKD", "cifar100_lskd:resnet8,resnet14", teachers=TEACHER),
    Setting("DKD", "cifar100_dkd:resnet8,resnet14", teachers=TEACHER),
    Setting("DIST", "cifar100_dist:resnet8,resnet14", teachers=TEACHER),
    Setting("CTKD", "cifar100_ctkd:resnet8,resnet14", teachers=TEACHER),
    Setting("EnsembleKD, two teachers", "cifar100_ensemble_kd:resnet8,resnet14,resnet14"),
    Setting("FitNet", "cifar100_fitnet:resnet8,resnet14", teachers=TEACHER),
    Setting("AT", "cifar100_at:resnet8,resnet14", teachers=TEACHER),
    Setting("VID", "cifar100_vid:resnet8,resnet14", teachers=TEACHER),
    Setting("ReviewKD", "cifar100_reviewkd:resnet8,resnet14", teachers=TEACHER),
    Setting("BlockKD", "cifar100_block_kd:resnet8,resnet14", teachers=TEACHER),
    Setting("MGD", "cifar100_mgd:resnet8,resnet14", teachers=TEACHER),
    Setting("SP", "cifar100_sp:resnet8,resnet14", teachers=TEACHER),
    Setting("RKD", "cifar100_rkd:resnet8,resnet14", teachers=TEACHER),
    Setting("PKT", "cifar100_pkt:resnet8,resnet14", teachers=TEACHER),
    Setting("CRD", "cifar100_crd:resnet8,resnet14", {"method.negatives": 256}, TEACHER),
    Setting("FT", "cifar100_ft:resnet8,resnet14", teachers=TEACHER),
    Setting("AFD, offline", "cifar100_afd_offline:resnet8,resnet14", teachers=TEACHER),
    Setting("FEED, two teachers", "cifar100_feed:resnet8,resnet14,resnet14"),
    Setting("FEED, three generations", "cifar100_sfeed:resnet8", {"generations": 3}),
    Setting("BAN, three generations", "cifar100_ban:resnet8", {"generations": 3}),
    Setting(
        "BAN+L, three generations",
        "cifar100_ban:resnet8",
        {"generations": 3, "method.label_weight": 1.0},
    ),
    Setting("AI-KD", "cifar100_ai_kd:resnet8"),
    Setting("PS-KD", "cifar100_ps_kd:resnet8"),
    Setting("CS-KD", "cifar100_cs_kd:resnet8"),
    Setting("TF-KD, virtual teacher", "cifar100_tf_kd:resnet8"),
    Setting("label smoothing", "cifar100_label_smoothing:resnet8"),
)
SOME = (INDEPENDENT, LOGITS, DML, AFD, ONE, KD)


def block(name: str, settings: tuple[Setting, ...], labels: int) -> Block:
    """A table of these settings with this many labels."""
    return Block(name, settings, functools.partial(recipe, labels=labels))


STUDY = Study(
    question="What does each method bring when labels are few?",
    blocks=(
        block("300 labels", ALL, 300),
        block("100 labels", SOME, 100),
        block("1000 labels", SOME, 1000),
    ),
    claims=tuple(
        Claim(words, f"{labels} labels", setting, against)
        for words, setting, against, *labelled in (
            ("learning together with AFD helps", "AFD", "independent", 100, 300),
            ("the logits help alone", "logits only", "independent", 100, 300),
            ("the discriminators help alone", "adversarial only", "independent", 300),
            ("the discriminators add to the logits", "AFD", "logits only", 100, 300),
            ("aligning maps by L1 harms", "L1", "independent", 300),
            ("L1 and logits together harm", "L1+KD", "independent", 300),
            ("L1 harms beside the logits", "L1+KD", "logits only", 300),
            ("discriminators do better than L1", "AFD", "L1+KD", 300),
            ("AFD does better than DML", "AFD", "DML", 100, 300),
            ("AFD offline does better than KD", "AFD, offline", "KD", 300),
        )
        for labels in labelled
    ),
)
