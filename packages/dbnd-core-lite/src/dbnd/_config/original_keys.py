"""Sections and keys that the original dbnd client reads and that mean nothing here.

They are accepted without a word, so that an existing ``databand.cfg`` works unchanged. The names are those of
dbnd, dbnd-run and dbnd-mlflow 1.0.34.1.
"""

from __future__ import annotations

from typing import Final

_SECTIONS: Final = frozenset(
    """
    airflow airflow_monitor aws azure config databand databricks databricks_azure dataproc describe docker emr env
    environments gcp git histogram kubernetes livy local local_machine local_machine_engine output qubole run
    run_log scheduler spark spark_local task_build task_visualiser tracking_spark
    """.split()
)

_KEYS: Final = {
    "core": """
        allow_vendored_package client_max_retry client_retry_sleep client_session_timeout
        databand_external_url debug environments fix_env_on_osx hide_system_pipeline_params
        max_tracking_store_retries plugins remove_failed_store tracker tracker_api tracker_url tracker_version
        user_configs user_pre_init validate_no_extra_params
    """.split(),
    "tracking": """
        airflow_operator_handlers auto_disable_slow_size databand_external_url flatten_operator_fields
        log_histograms log_value_meta log_value_preview_max_len log_value_schema log_value_size
        log_value_stats source track_source_code tracking_source_uid validate_no_extra_params
        value_reporting_strategy
    """.split(),
    "run_info": """
        execution_date is_archived source_version user_data validate_no_extra_params
    """.split(),
    "log": """
        capture_stdout_stderr console_value_preview_size exception_no_color exception_simple formatter
        validate_no_extra_params
    """.split(),
    "mlflow_tracking": ["validate_no_extra_params"],
}


def is_original(section: str, key: str) -> bool:
    """Whether the original client knows ``section.key`` (both in lower case)."""
    return section in _SECTIONS or key in _KEYS.get(section, ())
