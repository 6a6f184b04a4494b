"""What the paper published: figures to set beside measured ones, never to mix with them."""

from cortexgen.evaluation.table import PUBLISHED, Column, Value

PAPER = "Nadeem, Azizan and Michel, Cortex-Level Brain MRI Generation Using Diffusion Models"
SAMPLES = 400  # synthetic MRIs of each baseline
REAL_PAIRS_MS_SSIM = 0.88  # mean over pairs of real brains

MS_SSIM = Column("ms_ssim", "MS-SSIM", better=REAL_PAIRS_MS_SSIM)
METRICS = (
    Column("fid_resnet50_23", "FID1 (R50_23)", better="lower"),
    Column("mmd_resnet50_23", "MMD1 (R50_23)", better="lower"),
    Column("fid_resnet50", "FID2 (R50)", better="lower"),
    Column("mmd_resnet50", "MMD2 (R50)", better="lower"),
    Column("fid_resnet101", "FID3 (R101)", better="lower"),
    Column("mmd_resnet101", "MMD3 (R101)", better="lower"),
    MS_SSIM,
    Column("image_mmd", "Image MMD", better="lower", format=".0f"),
    Column("seconds", "Time", unit="s", better="lower"),
)
# Of the paper's own model: one MMD, of features that it doesn't name.
UNSTATED_MMD = Column("mmd_unstated", "MMD (features not stated)", better="lower")

BASELINES: dict[str, tuple[float, ...]] = {
    "VAE-GAN": (0.081, 0.046, 0.400, 0.210, 0.032, 0.020, 0.91, 131925, 0.018),
    "α-WGAN": (0.060, 0.040, 0.480, 0.250, 0.032, 0.020, 0.88, 203999, 0.014),
    "HA-GAN": (0.079, 0.040, 0.080, 0.043, 0.035, 0.018, 0.78, 759363, 0.020),
    "MONAI-LDM": (1.420, 0.69, 1.870, 0.940, 0.30, 0.150, 0.58, 3314614, 10.780),
    "MedSyn": (0.057, 0.037, 0.044, 0.034, 0.012, 0.010, 0.88, 217897, 44.450),
    "cDPM": (0.140, 0.082, 0.130, 0.081, 0.019, 0.014, 0.75, 586022, 1361.0),
}
OWN = {MS_SSIM.name: 0.8321, UNSTATED_MMD.name: 0.016}
REGISTRATION = {"psnr": 2.418, "ssim": 0.163}  # of its first stage, whole image, in dB and 1


def published_rows() -> list[dict[str, Value]]:
    """The rows of Table 1, and the paper's own, which stands in its text; the number of its samples isn't stated.

    Each has a method, n, the metrics, and its reference in the column "published".
    """
    rows: list[dict[str, Value]] = []
    for method, values in BASELINES.items():
        metrics = zip((column.name for column in METRICS), values, strict=True)
        rows.append({"method": method, "n": SAMPLES, PUBLISHED: f"{PAPER}, Table 1", **dict(metrics)})
    return [*rows, {"method": "Nadeem et al.", "n": None, PUBLISHED: f"{PAPER}, section 5.3", **OWN}]
