"""One line about each built-in configuration and mode, for lists."""

from __future__ import annotations

from bagformer_cli.messages import tr

CONFIGS = {
    "aladin": tr("ALADIN on MUGE with regions; base of its modes"),
    "demo": tr("The demo: drawn products, tiny encoders, minutes on two CPU cores"),
    "demo_regions": tr("The demo on regions instead of pixels"),
    "demo_shared": tr("The demo with one BERT for titles and images; base of inflate"),
    "demo_vit": tr("The demo with a small vision transformer instead of a ResNet"),
    "fast_slow": tr("Thinking Fast and Slow: ResNet-50, BERT, captioner"),
    "inflate_shrink": tr("Inflate and Shrink on MUGE with regions; base of its modes"),
    "muge_bagformer": tr("BagFormer on MUGE as published: ViT-B/16, BERT, bag-wise"),
    "muge_bagformer_24gb": tr("muge_bagformer for a card of 24 GB: 64 pairs"),
    "muge_bagformer_80gb": tr("muge_bagformer for a card of 80 GB: 256 pairs"),
    "muge_bagformer_8gb": tr("muge_bagformer for a card of 8 GB: twice 16 pairs"),
    "muge_chinese_clip": tr("Bag-wise fine-tuning on MUGE from Chinese-CLIP ViT-B/16"),
    "muge_cls": tr("Baseline with one vector for a title and for an image"),
    "muge_tokenwise": tr("Baseline with one vector for each token"),
    "pretrain_albef": tr("ALBEF's pretraining: ITC, ITM, MLM, momentum encoder"),
    "pretrain_demo": tr("Pretraining of the demo model on small images"),
    "pretrain_qq": tr("Pretraining of the QQ-browser 2021 winners: one joint BERT"),
    "rerank_demo": tr("Reranker on the frozen towers of a demo model"),
    "rerank_muge": tr("Reranker on the frozen towers of a MUGE model"),
    "demo_towers": tr("The demo model without ITC and cross-encoder"),
    "real": tr("Photographs: packaged EfficientNet-Lite2 and multilingual-e5, frozen"),
}
MODES = {
    "alignment_and_matching_distill": tr("ALADIN: alignment head teaches the matching head"),
    "alignment_triplet": tr("ALADIN: alignment head and backbone, triplet loss"),
    "base": tr("Inflate and Shrink, base: 32 vectors a side"),
    "captioner": tr("Thinking Fast and Slow, slow: titles as captions"),
    "chain": tr("inflate, shrinktobase, shrinktofast, one after the other"),
    "dualnce": tr("Thinking Fast and Slow, fast: one vector a side, InfoNCE"),
    "fast": tr("Inflate and Shrink, fast: one vector a side"),
    "inflate": tr("Inflate and Shrink, inflate: 32 code tokens a side more"),
    "matching_distill_finetune": tr("ALADIN: matching head taught on a frozen backbone"),
    "matching_triplet_e2e": tr("ALADIN: matching head and backbone, triplet loss"),
    "matching_triplet_finetune": tr("ALADIN: matching head on a frozen backbone"),
    "shrinktobase": tr("Shrink: an inflate model teaches a base model"),
    "shrinktofast": tr("Shrink: a base model teaches a fast model"),
    "slowtofast": tr("Thinking Fast and Slow: a slow model teaches a fast one"),
}
