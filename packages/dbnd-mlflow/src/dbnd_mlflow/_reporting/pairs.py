"""Telling the tracker which run of MLflow's store a run has become that began while the store was away."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from dbnd import Config, ConfigError
from dbnd.plugins import console
from dbnd.tracking import Source, destination_of, get_client, group, text_point

from .derived import attempt_uid, foreign, page_of, uid_of
from .tags import MADE_FOR, Link


def report_pair(config: Config, uri: str, tracker: str, own_id: str, run: Any, tags: Mapping[str, str]) -> None:
    """Report the store's id of a run, and its page, to the tracker that knows it, if this configuration sends there.

    The tracker's URL has no credentials; the run was announced under ``own_id``, and created with ``tags``.
    """
    url = destination_of(tracker, config).url
    if url is None:
        return
    try:
        client = get_client(url, config)
    except ConfigError as error:  # dbnd-tracker is not installed here, say: what the run has logged is delivered
        console.warn_once(f"The tracker is not told which runs of MLflow began in an outage: {error}")
        return
    uid = uid_of(own_id)
    link = Link.in_tags(tags) or Link(uid, uid, attempt_uid(uid))
    made_for = text_point(MADE_FOR, run.info.run_id, time.time_ns() // 1000)
    client.log_metrics([group(link.attempt_uid, Source.TAG, [made_for])])
    client.save_external_links(foreign(link, run.info.run_name or ""), {"mlflow": page_of(uri, run.info)})
