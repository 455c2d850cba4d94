"""Linear probes on made-up states."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from harness.worker.linear_probe import Probe, fit_probes, most_accurate

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("num_classes", [2, 3])
def test_a_probe_predicts_what_scikit_learn_does_on_standardized_features(num_classes):
    labels = RNG.integers(num_classes, size=200) * 2  # labels need not be consecutive
    states = RNG.normal(5, 3, size=(2, 200, 8)).astype(np.float32)
    states[1, :, 0] += 3 * labels
    states[:, :, 7] = 4.0  # a constant column has no deviation to divide by
    new = RNG.normal(5, 3, size=(2, 50, 8)).astype(np.float32)

    probes = fit_probes(states.copy(), labels, c_values=(0.01, 1.0))

    assert [(probe.layer, probe.c) for probe in probes] == [(0, 0.01), (0, 1.0), (1, 0.01), (1, 1.0)]
    for probe in probes:
        scaler = StandardScaler().fit(states[probe.layer].astype(np.float64))
        fitted = LogisticRegression(C=probe.c).fit(scaler.transform(states[probe.layer].astype(np.float64)), labels)
        assert probe.predict(new[probe.layer]).tolist() == fitted.predict(scaler.transform(new[probe.layer])).tolist()


def test_the_layer_that_holds_the_labels_is_the_most_accurate():
    labels = RNG.integers(2, size=300)
    states = RNG.normal(size=(4, 300, 8)).astype(np.float32)
    states[2, :, 3] += 4 * labels  # planted
    probes = fit_probes(states[:, :200].copy(), labels[:200])
    accuracies = [float(np.mean(probe.predict(states[probe.layer, 200:]) == labels[200:])) for probe in probes]
    assert probes[most_accurate(probes, accuracies)].layer == 2


def test_among_equals_the_smallest_c_is_chosen_then_the_lowest_layer():
    none = np.zeros(0)
    probes = [Probe(layer, c, none, none, none) for layer in range(3) for c in (0.1, 0.01)]
    assert most_accurate(probes, [0.5, 0.4, 0.7, 0.6, 0.7, 0.7]) == 5  # layer 2, C = 0.01
    assert most_accurate(probes, [0.7] * 6) == 1  # layer 0, C = 0.01
