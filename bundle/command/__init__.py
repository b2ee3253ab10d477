# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""What surrounds a run: the command line, the layers of configurations, the workflow, and its last words."""

from bundle.lazy import public

__all__, __getattr__, __dir__ = public(
    __name__,
    options=["literal", "typed_value"],
    run=["prepare_run", "run_to_end", "written_settings"],
    show_config=["shown_config"],
    workflow=["BundleWorkflow"],
)
