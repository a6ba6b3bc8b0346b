"""Pythia 8 events with a parametric tracker, written as NanoAOD-like ROOT files (`advtag simulate`).

Stage A, `generation/`: `pythia` (events of a process) -> `particles` (what each particle is) -> `clustering` (anti-kT
0.4, flavour by ghosts) -> `generate` (what a detector may see) -> `files` (Parquet). Stage B, `detector/`: `material`
(conversions, nuclear interactions), `jets` (smearing), `tracks` (efficiency, helix, resolution, pile-up) ->
`association` and `impact` (tracks of a jet, impact parameters) -> `vertexing` (secondary vertices) -> `deepcsv` (the 65
`Jet_DeepCSV_*` branches), `constituents` (candidates and vertices), `leptons`, `trigger` -> `reconstruct` (one block of
events). Around them: `processes`, `knobs` and `variants` (what can be asked for), `writer` (files), `run` (the
driver). Events are in NumPy columns throughout; the only loops over events are inside Pythia and FastJet.

It is a stand-in for PFNano files where none are at hand: shapes and dependencies between the inputs are realistic,
absolute efficiencies are not those of CMS. Known deviations:

* the rate of secondary vertices in light jets and the tails of their impact parameters depend on a rough model of
  the material (see `detector.material`) and on guessed tails; mistag rates below 0.1 % are not to be trusted;
* the corrected vertex mass has an overflow (3 % of light-jet vertices lie above 10 GeV), as in real PFNano files: the
  correction adds momentum across a flight direction that short flights measure badly;
* Monash makes half of the b baryons that LEP saw (4.6 % of b hadrons at the Z, LEP: 8.4 %), and its b fragmentation is
  harder (mean x_B at the Z 0.728, LEP and SLD: 0.709, which the variant `b-fragmentation` has);
* fakes are real particles' tracks with wrong impact parameters: they do not add to the number of tracks;
* the measured dz and polar angle of a track are uncorrelated (d0 and azimuth are correlated), and tracks in dense jets
  do not share hits;
* pile-up adds tracks inside jet cones only: no pile-up jets, no pile-up energy in jets or in lepton isolation;
* tracks are straight lines within a jet: vertices far out (over 1 cm) have somewhat too few soft tracks;
* prompt electrons and muons (from W, Z, tau) and their photons are not clustered, and their tracks are in no jet, so
  `Jet` is free of them, which a real `Jet` collection is not;
* electrons and muons come from W, Z, tau and heavy hadrons only (no decays in flight, no misidentification);
* the collection counters (`nJet`) are int32, where NanoAOD before v12 has uint32: uproot writes no other.

Pythia 8 and FastJet are GPL, therefore an optional extra (`pip install advtag[simulation]`) imported nowhere else.
References: Pythia 8.3 (arXiv:2203.11601), FastJet (arXiv:1111.6097).
"""
