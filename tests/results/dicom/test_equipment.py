# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pydicom

from bundle.results import Algorithm, ResultsWriter
from bundle.results.dicom.equipment import device_uid
from tests.results.dicom.test_dicom_results import ALGORITHM, InFolder, some_result

KINDS = ("sr", "seg", "heat", "sc")
DEVICE = {  # PS3.3 C.7.5.1
    "Manufacturer": "attention-imaging-bundle",
    "ManufacturerModelName": "trial",
    "SoftwareVersions": "0.1.0",
    "DeviceSerialNumber": "ab" * 32,
}


class TestDevice(InFolder):
    def objects(self, algorithm: Algorithm = ALGORITHM, **elements) -> dict[str, pydicom.Dataset]:
        path = self.radiograph(**elements)
        out = self.folder / f"out{elements.get('InstanceNumber', 1)}"
        with ResultsWriter(out, KINDS, algorithm=algorithm, threshold=0.5) as writer:
            writer.add(some_result(path))
        found = {kind: out / "dicom" / f"cr.dcm_0_{kind}.dcm" for kind in KINDS}
        return {kind: pydicom.dcmread(file) for kind, file in found.items() if file.exists()}

    def test_every_kind_states_the_same_device(self):
        objects = self.objects()
        self.assertEqual(tuple(objects), KINDS)
        for kind, found in objects.items():
            with self.subTest(kind):
                self.assertEqual({keyword: found.get(keyword) for keyword in DEVICE}, DEVICE)
                self.assertEqual(found.DeviceUID, device_uid(ALGORITHM))
                ours, library = found.ContributingEquipmentSequence
                self.assertEqual({keyword: ours.get(keyword) for keyword in DEVICE}, DEVICE)
                self.assertEqual(ours.DeviceUID, device_uid(ALGORITHM))
                # PS3.16 CID 7005 as pydicom 3.0 has it: (109102, DCM, "Processing Equipment")
                (purpose,) = ours.PurposeOfReferenceCodeSequence
                self.assertEqual((purpose.CodeValue, purpose.CodingSchemeDesignator), ("109102", "DCM"))
                self.assertEqual(ours.ContributionDateTime, library.ContributionDateTime)
                self.assertEqual(library.ManufacturerModelName, "highdicom")

    def test_the_observer_is_that_device_whatever_the_image(self):
        for number in (1, 2):
            observer = {
                item.ConceptNameCodeSequence[0].CodeValue: item.get("UID") or item.get("TextValue")
                for item in self.objects(InstanceNumber=number)["sr"].ContentSequence
                if item.RelationshipType == "HAS OBS CONTEXT" and item.ValueType in ("UIDREF", "TEXT")
            }
            # PS3.16 TID 1004: UID, name, manufacturer, model name, serial number
            expected = [device_uid(ALGORITHM), "trial", DEVICE["Manufacturer"], "trial", "ab" * 32]
            self.assertEqual([observer.get(str(code)) for code in range(121012, 121017)], expected)

    def test_other_weights_are_another_device(self):
        self.assertNotEqual(device_uid(Algorithm("trial", weights_sha256="cd" * 32)), device_uid(ALGORITHM))
        self.assertNotEqual(device_uid(Algorithm("other", weights_sha256="ab" * 32)), device_uid(ALGORITHM))
