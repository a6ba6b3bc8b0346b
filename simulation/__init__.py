"""Pythia 8 events with a parametric tracker, written as NanoAOD-like ROOT files (`advtag simulate`).

The chain, one file each: `generator` (Pythia) -> `particles` (what each particle is) -> `jets` (anti-kT 0.4,
flavour by ghosts, smearing) -> `tracks` (efficiency, helix, resolution, pile-up) -> `association` and `impact`
(tracks of a jet, impact parameters) -> `vertexing` (secondary vertices) -> `deepcsv` (the 65 `Jet_DeepCSV_*`
branches) and `leptons` -> `chain` (one block of events) -> `writer` (files) -> `run` (the driver). All
numbers that describe the detector or the generator tune are in `variants`. Events are in NumPy columns
throughout; the only loops over events are inside Pythia and FastJet.

It is a stand-in for PFNano files where none are at hand: shapes and dependencies between the inputs are realistic,
absolute efficiencies are not those of CMS. Known deviations:

* light-flavour jets have a reconstructed secondary vertex about half as often as in CMS: there are no photon
  conversions and no nuclear interactions (lost tracks only);
* the tail of the third-ranked track's impact parameter significance is too short in light jets, for the same
  reason; mistag rates below 0.1 % are not to be trusted;
* the corrected vertex mass has an overflow (5 % of light-jet vertices lie above 10 GeV), as in real PFNano files;
* the measured d0 and phi of a track are uncorrelated, and tracks in dense jets do not share hits;
* pile-up adds tracks inside jet cones only: no pile-up jets, no pile-up energy in jets or in lepton isolation;
* tracks are straight lines within a jet: vertices far out (over 1 cm) have somewhat too few soft tracks;
* prompt electrons and muons (from W, Z, tau) are not clustered, so `Jet` is free of them, which a real `Jet`
  collection is not;
* electrons and muons come from W, Z, tau and heavy hadrons only (no decays in flight, no misidentification);
* the collection counters (`nJet`) are int32, where NanoAOD before v12 has uint32: uproot writes no other.

Pythia 8 and FastJet are GPL, therefore an optional extra (`pip install advtag[simulation]`) imported nowhere else.
References: Pythia 8.3 (arXiv:2203.11601), FastJet (arXiv:1111.6097).
"""
