"""Registry of all experiments, in the paper's order."""

from __future__ import annotations

from tfquant.analysis import (
    distortion_error,
    distortion_error_2d,
    gradient_bias_network,
    gradient_risk,
    laplacian_source,
    mutual_information,
    rate_error,
    rate_error_2d,
    sigma_distribution,
)

EXPERIMENTS = {
    module.EXPERIMENT.name: module.EXPERIMENT
    for module in (
        mutual_information,
        distortion_error,
        distortion_error_2d,
        rate_error,
        rate_error_2d,
        gradient_risk,
        gradient_bias_network,
        laplacian_source,
        sigma_distribution,
    )
}
