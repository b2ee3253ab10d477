# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""
A DICOM node that answers studies with results: ``python -m bundle.service --help``.

Needs the extra ``service`` (``pip install 'attention-imaging-bundle[service]'``). Research use only.
"""
