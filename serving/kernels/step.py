"""A whole decoder step as compiled loops, for steps of few tokens on a CPU.

With few tokens a step is bound by reading the weights, and of the rest most is calls: here there
is one call for all layers. Weights stay where torch put them, in fp32 or bf16, and are read
through their addresses (`serving.kernels.products`); sums are fp32. Knows arrays and addresses of
a Llama-type decoder; does not know torch, models or requests
(`serving.engine.compiled_runner`). Needs numba.
"""

from __future__ import annotations

import numpy as np

from serving.kernels.intrinsics import (
    at,
    compiled,
    exp,
    increment_atomic,
    load_atomic,
    narrow,
    widen,
)
from serving.kernels.layout import ATTEND, DOWN, EMBED, GATE_UP, HEAD, LAYER_KINDS, OUT_PROJ, QKV
from serving.kernels.products import STRIP, as_stored, matmul


@compiled()
def _part_rows(total, part, parts):
    """[low, high) of `total` that belongs to a part, cut between strips."""
    strips = (total + STRIP - 1) // STRIP
    return strips * part // parts * STRIP, min(total, strips * (part + 1) // parts * STRIP)


@compiled()
def _rms_norm(source, places, weight, epsilon, target):
    """Root mean square norm of the chosen rows."""
    size = weight.shape[0]
    for i in range(places.shape[0]):
        t = places[i]
        total = np.float32(0)
        for k in range(size):
            total += source[t, k] * source[t, k]
        factor = np.float32(1) / np.sqrt(total / np.float32(size) + epsilon)
        for k in range(size):
            target[i, k] = source[t, k] * factor * weight[k]


@compiled()
def _add_adapter(x, size, target, width, total, low, high, out, tokens, ranks, like):
    """What the tokens' adapters make of out[:, low:high], of `total` outputs in all.

    `target` [5] as in `ModelArrays.targets`, of `width` layers that share the input x[:, :size].
    """
    if target[0] == 0 and target[2] == 0:
        return
    count = tokens.ids.shape[0]
    if target[2] != 0:
        for t in range(count):
            row, owner = out[t, low:high], tokens.owners[t]
            _scale(row, target[2], owner, total, low, like)
            if target[3] != 0:
                shift = at(target[3], owner + 1, total, like)[owner, low:high]
                for n in range(len(row)):
                    row[n] += widen(shift[n])
    if target[0] != 0:
        down, up = (
            at(target[0], width * ranks, size, like),
            at(target[1], width * ranks, total, like),
        )
        for t in range(count):
            end = tokens.high[t] * width
            for c in range(tokens.low[t] * width, end, 2):
                d = min(c + 1, end - 1)
                pair = up[c, low:high], up[d, low:high]
                _add_rank_pair(x[t], down[c], down[d], pair, d > c, out[t, low:high])


@compiled()
def _add_rank_pair(x, first, second, up, is_pair, row):
    """Add one rank column of an adapter and, if `is_pair`, another to a token's outputs."""
    a = b = np.float32(0)
    for k in range(len(first)):
        a += widen(first[k]) * x[k]
        b += widen(second[k]) * x[k]
    if not is_pair:
        b = np.float32(0)
    for n in range(len(row)):
        row[n] += a * widen(up[0][n]) + b * widen(up[1][n])


@compiled()
def _rotate(row, weight, cos, sin, epsilon):
    """Normalise (if there is a weight) and rotate one head of a token, in place."""
    half = cos.shape[0]
    if weight.shape[0]:
        total = np.float32(0)
        for d in range(len(row)):
            total += row[d] * row[d]
        factor = np.float32(1) / np.sqrt(total / np.float32(len(row)) + epsilon)
        for d in range(len(row)):
            row[d] *= factor * weight[d]
    for d in range(half):
        a, b = row[d], row[half + d]
        row[d] = a * cos[d] - b * sin[d]
        row[half + d] = b * cos[d] + a * sin[d]


@compiled()
def _score(query, keys, low, scale, scores):
    """Scaled scores of a head over lines of keys; four keys share a reading of the query."""
    count, size = len(scores), len(query)
    for j in range(0, count, 4):
        last = count - 1  # Beyond it, it is read again.
        k0, k1 = keys[j, low : low + size], keys[min(j + 1, last), low : low + size]
        k2, k3 = keys[min(j + 2, last), low : low + size], keys[min(j + 3, last), low : low + size]
        a0 = a1 = a2 = a3 = np.float32(0)
        for d in range(size):
            a0 += query[d] * widen(k0[d])
            a1 += query[d] * widen(k1[d])
            a2 += query[d] * widen(k2[d])
            a3 += query[d] * widen(k3[d])
        scores[min(j + 3, last)] = a3 * scale
        scores[min(j + 2, last)] = a2 * scale
        scores[min(j + 1, last)] = a1 * scale
        scores[j] = a0 * scale


@compiled()
def _attend_head(query, keys, values, low, scale, scores, out):
    """One head of one token over the lines of its slot that it sees, into out."""
    count, size = len(scores), len(query)
    _score(query, keys, low, scale, scores)
    most, total = scores.max(), np.float32(0)
    for j in range(count):
        scores[j] = exp(scores[j] - most)
        total += scores[j]
    out[:] = np.float32(0)
    for j in range(0, count, 4):
        last, zero = count - 1, np.float32(0)
        v0, v1 = values[j, low : low + size], values[min(j + 1, last), low : low + size]
        v2 = values[min(j + 2, last), low : low + size]
        v3 = values[min(j + 3, last), low : low + size]
        s0, s1 = scores[j] / total, scores[j + 1] / total if j + 1 < count else zero
        s2 = scores[j + 2] / total if j + 2 < count else zero
        s3 = scores[j + 3] / total if j + 3 < count else zero
        for d in range(size):
            out[d] += (
                s0 * widen(v0[d]) + s1 * widen(v1[d]) + s2 * widen(v2[d]) + s3 * widen(v3[d])
            )  # fmt: skip


@compiled()
def _attend(layer, part, parts, thread, m, tokens, s):
    """A part's share of (row, key head): store the new keys and values, weigh the old ones."""
    heads, kv_heads, head, lines = m.sizes[0], m.sizes[1], m.sizes[2], m.sizes[4]
    group, window, in_gain = heads // kv_heads, m.windows[layer], m.targets[layer, OUT_PROJ, 4]
    keys = at(m.cached[layer, 0], lines, kv_heads * head, m.like)
    values = at(m.cached[layer, 1], lines, kv_heads * head, m.like)
    units = (tokens.runs.shape[0] - 1) * kv_heads
    for unit in range(units * part // parts, units * (part + 1) // parts):
        run, low = unit // kv_heads, unit % kv_heads * head
        for t in range(tokens.runs[run], tokens.runs[run + 1]):
            place, first, row = tokens.positions[t], tokens.firsts[t], s.joint[t]
            cos, sin, epsilon = m.cos[place], m.sin[place], m.reals[0]
            own = heads * head + low
            key, value = row[own : own + head], row[own + kv_heads * head :]
            _rotate(key, m.head_norms[layer, 1], cos, sin, epsilon)
            for d in range(head):
                keys[first + place, low + d] = narrow(key[d], m.like)
                values[first + place, low + d] = narrow(value[d], m.like)
            begin = max(0, place + 1 - window) if window else 0
            seen = keys[first + begin : first + place + 1]
            weighed = values[first + begin : first + place + 1]
            scores = s.scores[thread, : len(seen)]
            for q in range(low * group, (low + head) * group, head):
                query, out = row[q : q + head], s.mixed[t, q : q + head]
                _rotate(query, m.head_norms[layer, 0], cos, sin, epsilon)
                _attend_head(query, seen, weighed, low, m.reals[1], scores, out)
                _scale(out, in_gain, tokens.owners[t], heads * head, q, m.like)


@compiled()
def _scale(row, address, owner, total, low, like):
    """Scale a row, which is [low, ...) of `total` inputs, by its adapter's input gain."""
    if address != 0:
        gain = at(address, owner + 1, total, like)[owner, low : low + len(row)]
        for i in range(len(row)):
            row[i] *= widen(gain[i])


@compiled()
def _linear(kind, layer, part, parts, x, stored, m, tokens, s, out):
    """A part's share of a linear layer over x, `stored` as weights are, and of what follows."""
    total, size, width = m.shapes[kind, 0], m.shapes[kind, 1], m.shapes[kind, 2]
    spans = 2 if kind == GATE_UP else 1
    low, high = _part_rows(total // spans, part, parts)
    address = m.ends[1] if kind == HEAD else m.weights[layer, kind]
    count = len(tokens.wanted) if kind == HEAD else len(tokens.all)
    w = at(address, total, size, m.like)
    for span in range(spans):
        a, b = span * (total // 2) + low, span * (total // 2) + high
        matmul(stored, count, w, a, b, out)
        if kind == QKV and m.biases[layer] != 0:
            bias = at(m.biases[layer], 1, total, m.like)[0, a:b]
            for t in range(count):
                row = out[t, a:b]
                for n in range(len(row)):
                    row[n] += widen(bias[n])
        if kind != HEAD:
            target = m.targets[layer, kind]
            _add_adapter(x, size, target, width, total, a, b, out, tokens, m.sizes[3], m.like)
    if kind in (OUT_PROJ, DOWN):
        for t in range(count):
            old, new = s.stream[t, low:high], out[t, low:high]
            for n in range(len(old)):
                old[n] += new[n]
    if kind == GATE_UP:
        for t in range(count):
            gates, row = out[t, low:high], s.inner[t, low:high]
            rest = out[t, total // 2 + low : total // 2 + high]
            for i in range(len(row)):
                row[i] = gates[i] / (np.float32(1) + exp(-gates[i])) * rest[i]
            gain = m.targets[layer, DOWN, 4]
            _scale(row, gain, tokens.owners[t], total // 2, low, m.like)


@compiled()
def _run_part(kind, layer, part, parts, thread, is_first, m, tokens, s, logits):
    """One part of one phase; `is_first` of this thread in this phase."""
    x, out = s.normed[thread], s.output
    if kind == EMBED:
        size = m.shapes[HEAD, 1]
        for t in range(part, len(tokens.ids), parts):
            row = at(m.ends[0] + tokens.ids[t] * size * m.like.itemsize, 1, size, m.like)
            for n in range(size):
                s.stream[t, n] = widen(row[0, n])
        return
    if kind == ATTEND:
        _attend(layer, part, parts, thread, m, tokens, s)
        return
    if is_first and kind == HEAD:
        _rms_norm(s.stream, tokens.wanted, m.last_norm, m.reals[0], x)
    elif is_first and kind in (QKV, GATE_UP):
        _rms_norm(s.stream, tokens.all, m.norms[layer, kind // 2], m.reals[0], x)
    if kind in (QKV, GATE_UP):
        out = s.joint
    elif kind == OUT_PROJ:
        x = s.mixed
    elif kind == DOWN:
        x = s.inner
    elif kind == HEAD:
        out = logits
    count = len(tokens.wanted) if kind == HEAD else len(tokens.all)
    stored = as_stored(x, count, s.stored[thread], is_first, m.like)
    _linear(kind, layer, part, parts, x, stored, m, tokens, s, out)


@compiled()
def step(thread, parts, taken, done, m, tokens, s, logits):
    """Do a thread's share of a step; returns when all of it is done, whoever did it.

    `taken` and `done` [phases], zeros at first, count the parts of each phase; threads take parts
    as they come, so that one that comes late, or never, holds nobody up. Call in each thread.
    """
    phases = len(taken)
    for phase in range(phases):
        layer, kind = (phase - 1) // len(LAYER_KINDS), EMBED
        if phase == phases - 1:
            kind = HEAD
        elif phase:
            kind = LAYER_KINDS[(phase - 1) % len(LAYER_KINDS)]
        is_first, part = True, increment_atomic(taken, phase)
        while part < parts:
            _run_part(kind, layer, part, parts, thread, is_first, m, tokens, s, logits)
            increment_atomic(done, phase)
            is_first, part = False, increment_atomic(taken, phase)
        while load_atomic(done, phase) < parts:
            pass
