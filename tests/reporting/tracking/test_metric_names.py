"""Metrics are named so that MLflow's page sorts them into sections."""

from jawloc.reporting.tracking.metric_names import grouped


def test_an_epochs_numbers_come_into_sections_and_keep_their_values():
    flat = {
        "sigma_voxels": 4.0,
        "learning_rate": 0.003,
        "seconds": 2.0,
        "train_kl_nats": 1.0,
        "train_error_voxels_median": 2.5,
        "val_mse_relative": 0.5,
        "val_kl_left_nats": 1.5,
        "val_error_left_mm": 0.2,
    }
    assert grouped(flat) == {
        "curriculum/sigma": 4.0,
        "train/learning_rate": 0.003,
        "system/epoch_seconds": 2.0,
        "train/kl": 1.0,
        "train/error_voxels_median": 2.5,
        "val/mse_relative": 0.5,
        "val/kl_left": 1.5,
        "val/error_left_mm": 0.2,
    }


def test_with_two_stages_each_has_a_sigma_and_none_is_there_twice():
    flat = {
        "sigma_voxels": 2.0,
        "sigma_coarse_voxels": 4.0,
        "sigma_fine_voxels": 2.0,
        "val_kl_coarse_nats": 1.0,
    }
    assert grouped(flat) == {
        "curriculum/sigma_coarse": 4.0,
        "curriculum/sigma_fine": 2.0,
        "val/kl_coarse": 1.0,
    }
