"""The measures of a registration, as tables and pages show them."""

from cortexgen.evaluation.table import Column

VERSION = 1  # raised when `warped_measures` gives something else for the same files
MEASURES = (  # the first two need labels, and are of each class, too
    Column("dice", "Dice", better="higher", format=".3f"),
    Column("hd95", "HD95", unit="mm", better="lower", format=".2f"),
    Column("psnr", "PSNR", unit="dB", better="higher", format=".2f"),
    Column("ssim", "SSIM", better="higher", format=".3f"),
    Column("ncc", "NCC", better="higher", format=".3f"),
    Column("brain_psnr", "PSNR in the brain", unit="dB", better="higher", format=".2f"),
    Column("brain_ssim", "SSIM in the brain", better="higher", format=".3f"),
    Column("brain_ncc", "NCC in the brain", better="higher", format=".3f"),
    Column("folded", "Folded share", better="lower", format=".2g"),
    Column("brain_folded", "Folded share in the brain", better="lower", format=".2g"),
    Column("brain_sd_log_jacobian", "SD of log |J| in the brain", format=".3f"),
)
