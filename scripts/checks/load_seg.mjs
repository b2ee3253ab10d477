// Copyright (c) The attention-imaging-bundle contributors
// SPDX-License-Identifier: Apache-2.0
// Load a SEG with dcmjs and cornerstone's adapters, as OHIF does; print its labels and the voxels that are set.
// usage, see docs/results-format.md: node scripts/checks/load_seg.mjs SOURCE.dcm SEG.dcm
import fs from "node:fs";
import dcmjs from "dcmjs";
import { metaData } from "@cornerstonejs/core";
import { adaptersSEG } from "@cornerstonejs/adapters";

const bytesOf = (path) => {
  const file = fs.readFileSync(path);
  return file.buffer.slice(file.byteOffset, file.byteOffset + file.byteLength);
};
const read = (bytes) => dcmjs.data.DicomMetaDictionary.naturalizeDataset(dcmjs.data.DicomMessage.readFile(bytes).dict);
const source = read(bytesOf(process.argv[2]));
const bytes = bytesOf(process.argv[3]);
const orientation = source.ImageOrientationPatient ?? [1, 0, 0, 0, 1, 0];
const modules = {
  imagePlaneModule: {
    rows: source.Rows,
    columns: source.Columns,
    imageOrientationPatient: orientation,
    rowCosines: orientation.slice(0, 3),
    columnCosines: orientation.slice(3),
    imagePositionPatient: source.ImagePositionPatient ?? [0, 0, 0],
    frameOfReferenceUID: source.FrameOfReferenceUID,
  },
  imagePixelModule: { rows: source.Rows, columns: source.Columns, bitsAllocated: 8, samplesPerPixel: 1, photometricInterpretation: "MONOCHROME2" },
  generalSeriesModule: { seriesInstanceUID: source.SeriesInstanceUID, modality: source.Modality },
  sopCommonModule: { sopInstanceUID: source.SOPInstanceUID, sopClassUID: source.SOPClassUID },
  instance: source,
};
const provider = (type) => modules[type];
metaData.addProvider(provider, 1000);
const found = await adaptersSEG.Cornerstone3D.Segmentation.createFromDICOMSegBuffer(["source:1"], bytes, { metadataProvider: { get: provider } });
const image = found.labelMapImages.flat()[0];
const pixels = image.voxelManager.getScalarData();
const set = [];
pixels.forEach((value, place) => value && set.push([place % source.Columns, Math.floor(place / source.Columns), value]));
const labels = found.segMetadata.data.filter(Boolean).map((segment) => [Number(segment.SegmentNumber), segment.SegmentLabel]);
console.log(JSON.stringify({ rows: source.Rows, columns: source.Columns, labels, set }));
process.exit(0);
