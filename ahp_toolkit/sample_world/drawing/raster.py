"""Anti-aliased painting of round limbs, ellipses and polygons with cloth patterns and shading (numba).

Only +, -, *, /, square roots and integer hashes are used, in a fixed order: the same bytes on every machine.
A *row* describes one primitive (see `ROW`), a *material* its cloth (see `MAT`); both are float64 vectors.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

PROFILE = 12
#: columns of a primitive row
KIND, LABEL, MODE, MATERIAL, AX, AY, BX, BY, CAP0, CAP1, ROUND, TU, TV, SHADE, START, COUNT = range(16)
RIGHT, LEFT = 16, 16 + PROFILE
ROW = 16 + 2 * PROFILE
CYLINDER, ELLIPSE, POLYGON = 0.0, 1.0, 2.0
#: paint; darken what is there; paint only over what is there
PAINT, DARKEN, OVER = 0.0, 1.0, 2.0
#: columns of a material: pattern, colour, second colour, size, fold strength, offsets, fine grain
PATTERN, C1, C2, SIZE, FOLD, OFF_U, OFF_V, GRAIN = 0, 1, 4, 7, 8, 9, 10, 11
MAT = 12
PATTERNS = ("plain", "rings", "lines", "checks", "dots", "two-tone", "logo", "plaid", "streaks", "bricks", "planks")
SS = 2


@njit(cache=True)
def _hash(x, y, seed):  # type: ignore[no-untyped-def]
    low = np.uint64(0xFFFFFFFF)
    h = (np.uint64(x) * np.uint64(374761393) + np.uint64(y) * np.uint64(668265263) + np.uint64(seed)) & low
    h = ((h ^ (h >> np.uint64(13))) * np.uint64(1274126177)) & low
    h = ((h ^ (h >> np.uint64(16))) * np.uint64(2246822519)) & low
    return h ^ (h >> np.uint64(15))


@njit(cache=True)
def _value(x, y, seed):  # type: ignore[no-untyped-def]
    xi, yi = np.floor(x), np.floor(y)
    fx, fy = x - xi, y - yi
    fx, fy = fx * fx * (3.0 - 2.0 * fx), fy * fy * (3.0 - 2.0 * fy)
    i, j = np.int64(xi) & 0xFFFFFF, np.int64(yi) & 0xFFFFFF
    k = 1.0 / 4294967296.0
    a = _hash(i, j, seed) * k
    b = _hash(i + 1, j, seed) * k
    c = _hash(i, j + 1, seed) * k
    d = _hash(i + 1, j + 1, seed) * k
    return (a * (1 - fx) + b * fx) * (1 - fy) + (c * (1 - fx) + d * fx) * fy


@njit(cache=True)
def _second(pattern, u, v, size):  # type: ignore[no-untyped-def]
    """Share of the second colour at cloth coordinates (u along, v around), in [0, 1]."""
    a, b = u / size, v / size
    fa, fb = a - np.floor(a), b - np.floor(b)
    if pattern == 1:
        return 1.0 if fa < 0.5 else 0.0
    if pattern == 2:
        return 1.0 if fb < 0.5 else 0.0
    if pattern == 3:
        return 1.0 if (fa < 0.5) != (fb < 0.5) else 0.0
    if pattern == 4:
        if np.int64(np.floor(a)) % 2 != 0:
            fb = b + 0.5 - np.floor(b + 0.5)
        return 1.0 if (fa - 0.5) * (fa - 0.5) + (fb - 0.5) * (fb - 0.5) < 0.085 else 0.0
    if pattern == 5:
        return 1.0 if u < size else 0.0
    if pattern == 6:
        du, dv = u - 1.7 * size, v
        r = du * du + dv * dv
        return 1.0 if r < 0.75 * size * size and not (abs(dv) < 0.3 * size and abs(du) < 0.3 * size) else 0.0
    if pattern == 7:
        return (0.5 if fa < 0.4 else 0.0) + (0.5 if fb < 0.4 else 0.0)
    if pattern == 8:
        return _value(b * 4.0, a * 0.4, 77)
    if pattern == 9:
        if np.int64(np.floor(a)) % 2 != 0:
            fb = b * 0.5 + 0.5 - np.floor(b * 0.5 + 0.5)
        else:
            fb = b * 0.5 - np.floor(b * 0.5)
        return 1.0 if fa < 0.12 or fb < 0.06 else 0.0
    if pattern == 10:
        return 1.0 if fa < 0.07 else 0.35 * _value(b * 0.6, np.floor(a) * 3.7, 5)
    return 0.0


@njit(cache=True)
def _put(buffer, labels, place, index, row, seen):  # type: ignore[no-untyped-def]
    """Note what lies at a sample (y, x): row number, cloth coordinates and normal (``seen``), dimming; no shade yet."""
    y, x = place
    mode = row[2]
    if mode != 0.0 and labels[y, x] == 0:
        return
    at = buffer[y, x]
    if mode == 1.0:
        at[5] *= row[13]
        return
    at[0], at[1], at[2], at[3], at[4], at[5] = index, seen[0], seen[1], seen[2], seen[3], row[13]
    if row[1] > 0.0:
        labels[y, x] = np.uint8(row[1])


@njit(cache=True)
def _shade(at, row, mat, light, unit, rgb):  # type: ignore[no-untyped-def]
    u, v = at[1] / unit + mat[9] + row[11], at[2] / unit * row[12] + mat[10]
    share = _second(int(mat[0]), u, v, mat[7])
    nx, ny = np.float64(at[3]), np.float64(at[4])
    lambert = nx * light[0] + ny * light[1] + np.sqrt(max(0.0, 1.0 - nx * nx - ny * ny)) * light[2]
    shade = (light[3] + light[4] * max(0.0, lambert)) * at[5]
    if mat[8] > 0.0:
        shade = shade * (1.0 + mat[8] * (_value(u * 0.16 + v * 0.09, v * 0.26 - u * 0.07, 11) - 0.5))
    if mat[11] > 0.0:
        shade = shade * (1.0 + mat[11] * (_value(u * 1.9, v * 1.9, 23) - 0.5))
    for c in range(3):
        rgb[c] += min(255.0, (mat[1 + c] * (1.0 - share) + mat[4 + c] * share) * shade)


@njit(cache=True)
def _cylinder(buffer, labels, index, row, origin):  # type: ignore[no-untyped-def]
    h, w = labels.shape
    ox, oy = origin
    ax, ay, bx, by = row[4], row[5], row[6], row[7]
    dx, dy = bx - ax, by - ay
    length = np.sqrt(dx * dx + dy * dy)
    if length < 1e-3:
        dx, dy, length = 0.0, 1.0, 1e-3
    else:
        dx, dy = dx / length, dy / length
    widest = 0.0
    for k in range(16, 40):
        widest = max(widest, row[k])
    reach = widest * max(1.0, max(row[8], row[9])) + 1.0
    x0 = max(0, int(np.floor((min(ax, bx) - reach - ox) * 2)))
    x1 = min(w, int(np.ceil((max(ax, bx) + reach - ox) * 2)) + 1)
    y0 = max(0, int(np.floor((min(ay, by) - reach - oy) * 2)))
    y1 = min(h, int(np.ceil((max(ay, by) + reach - oy) * 2)) + 1)
    for y in range(y0, y1):
        py = (y + 0.5) * 0.5 + oy - ay
        for x in range(x0, x1):
            px = (x + 0.5) * 0.5 + ox - ax
            t = px * dx + py * dy
            v = px * dy - py * dx
            base = 16 if v >= 0 else 28
            f = min(1.0, max(0.0, t / length)) * 11.0
            k = min(10, int(f))
            f -= k
            width = row[base + k] * (1.0 - f) + row[base + k + 1] * f
            if width <= 0.0:
                continue
            s = v / width
            if s < -1.0 or s > 1.0:
                continue
            over = -t if t < 0.0 else (t - length if t > length else 0.0)
            if over > 0.0:
                cap = (row[8] if t < 0.0 else row[9]) * width
                if cap <= 0.0 or s * s + over * over / (cap * cap) > 1.0:
                    continue
            bend = s * (row[10] + (1.0 - row[10]) * s * s)
            around = s * width * (1.0 + s * s * (0.17 + 0.35 * s * s))
            _put(buffer, labels, (y, x), index, row, (t, around, bend * dy, -bend * dx))


@njit(cache=True)
def _ellipse(buffer, labels, index, row, origin):  # type: ignore[no-untyped-def]
    h, w = labels.shape
    ox, oy = origin
    cx, cy, rx, ry = row[4], row[5], row[16], row[17]
    co, si = row[6], row[7]  # direction of the rx axis
    reach = max(rx, ry) + 1.0
    x0, x1 = max(0, int(np.floor((cx - reach - ox) * 2))), min(w, int(np.ceil((cx + reach - ox) * 2)) + 1)
    y0, y1 = max(0, int(np.floor((cy - reach - oy) * 2))), min(h, int(np.ceil((cy + reach - oy) * 2)) + 1)
    for y in range(y0, y1):
        py = (y + 0.5) * 0.5 + oy - cy
        for x in range(x0, x1):
            px = (x + 0.5) * 0.5 + ox - cx
            a, b = (px * co + py * si) / rx, (py * co - px * si) / ry
            r = a * a + b * b
            if r > 1.0:
                continue
            k = row[10]
            nx, ny = k * (a * co - b * si), k * (a * si + b * co)
            _put(buffer, labels, (y, x), index, row, (b * ry, a * rx, nx, ny))


@njit(cache=True)
def _polygon(buffer, labels, index, row, points, origin):  # type: ignore[no-untyped-def]
    h, w = labels.shape
    ox, oy = origin
    start, n = int(row[14]), int(row[15])
    low_x = low_y = 1e9
    high_x = high_y = -1e9
    for i in range(start, start + n):
        low_x, high_x = min(low_x, points[i, 0]), max(high_x, points[i, 0])
        low_y, high_y = min(low_y, points[i, 1]), max(high_y, points[i, 1])
    half = max(0.5, (high_x - low_x) * 0.5)
    mid = low_x + half
    cross = np.empty(n, np.float64)
    for y in range(max(0, int((low_y - oy) * 2) - 1), min(h, int((high_y - oy) * 2) + 2)):
        py = (y + 0.5) * 0.5 + oy
        found = 0
        j = start + n - 1
        for i in range(start, start + n):
            if (points[i, 1] > py) != (points[j, 1] > py):
                f = (py - points[i, 1]) / (points[j, 1] - points[i, 1])
                cross[found] = points[i, 0] + f * (points[j, 0] - points[i, 0])
                found += 1
            j = i
        cross[:found].sort()
        for q in range(0, found - 1, 2):
            left = max(0, int(np.ceil((cross[q] - ox) * 2 - 0.5)))
            right = min(w, int(np.floor((cross[q + 1] - ox) * 2 - 0.5)) + 1)
            for x in range(left, right):
                px = (x + 0.5) * 0.5 + ox
                s = max(-1.0, min(1.0, (px - mid) / half)) * row[10]
                _put(buffer, labels, (y, x), index, row, (py - low_y, px - mid, s, 0.0))


@njit(cache=True)
def draw(buffer, labels, rows, points, origin):  # type: ignore[no-untyped-def]
    """Lay rows in order into ``buffer`` float32 [2h, 2w, 6] and ``labels`` uint8 [2h, 2w], ``origin`` (x, y) px."""
    for i in range(rows.shape[0]):
        row = rows[i]
        if row[0] == 0.0:
            _cylinder(buffer, labels, i, row, origin)
        elif row[0] == 1.0:
            _ellipse(buffer, labels, i, row, origin)
        else:
            _polygon(buffer, labels, i, row, points, origin)


@njit(cache=True)
def shrink(buffer, labels, rows, materials, light, unit):  # type: ignore[no-untyped-def]
    """2x2 samples to one px: RGBA uint8 [h, w, 4], and uint8 [h, w], the commonest label where >= 2 have one."""
    h, w = labels.shape[0] // 2, labels.shape[1] // 2
    out, parts = np.zeros((h, w, 4), np.uint8), np.zeros((h, w), np.uint8)
    rgb = np.empty(3, np.float64)
    for y in range(h):
        for x in range(w):
            n, best, best_n = 0, 0, 0
            rgb[:] = 0.0
            for j in range(4):
                yy, xx = 2 * y + j // 2, 2 * x + j % 2
                label = labels[yy, xx]
                if label == 0:
                    continue
                n += 1
                row = rows[int(buffer[yy, xx, 0])]
                _shade(buffer[yy, xx], row, materials[int(row[3])], light, unit, rgb)
                same = 0
                for k in range(4):
                    if labels[2 * y + k // 2, 2 * x + k % 2] == label:
                        same += 1
                if same > best_n:
                    best, best_n = label, same
            if n > 0:
                for c in range(3):
                    out[y, x, c] = np.uint8(rgb[c] / n + 0.5)
                out[y, x, 3] = np.uint8(min(255, n * 64))
            if n >= 2:
                parts[y, x] = best
    return out, parts


@njit(cache=True)
def over(canvas, layer, x0, y0):  # type: ignore[no-untyped-def]
    """Composite an RGBA tile at (x0, y0) over uint8 [H, W, 3], in place."""
    h, w, _ = layer.shape
    for y in range(h):
        for x in range(w):
            a = np.int64(layer[y, x, 3])
            if a == 0:
                continue
            for c in range(3):
                v = layer[y, x, c] * a + canvas[y0 + y, x0 + x, c] * (255 - a)
                canvas[y0 + y, x0 + x, c] = np.uint8((v + 127) // 255)


@njit(cache=True)
def shadow(canvas, cx, cy, rx, ry, strength):  # type: ignore[no-untyped-def]
    """Darken a soft ellipse of uint8 [H, W, 3], in place."""
    h, w, _ = canvas.shape
    for y in range(max(0, int(cy - ry)), min(h, int(cy + ry) + 1)):
        for x in range(max(0, int(cx - rx)), min(w, int(cx + rx) + 1)):
            a, b = (x + 0.5 - cx) / rx, (y + 0.5 - cy) / ry
            r = 1.0 - a * a - b * b
            if r > 0.0:
                k = 1.0 - strength * r
                for c in range(3):
                    canvas[y, x, c] = np.uint8(canvas[y, x, c] * k)


@njit(cache=True)
def sensor(canvas, seed, sigma, gain):  # type: ignore[no-untyped-def]
    """A copy of uint8 [H, W, 3] with tone gains and noise of ``sigma`` grey levels; noise depends on the place only."""
    out = np.empty_like(canvas)
    h, w, _ = canvas.shape
    for y in range(h):
        for x in range(w):
            noise = _hash(x, y, seed)
            common = np.float64(noise & np.uint64(255)) + np.float64((noise >> np.uint64(8)) & np.uint64(255)) - 255.0
            own = _hash(x, y, seed + 1)
            for c in range(3):
                n = np.float64((own >> np.uint64(10 * c)) & np.uint64(1023)) - 511.5
                v = canvas[y, x, c] * gain[c] + sigma * (common / 104.0 * 0.8 + n / 295.0 * 0.6)
                out[y, x, c] = np.uint8(min(255.0, max(0.0, v + 0.5)))
    return out


@njit(cache=True)
def mottle(canvas, y0, y1, size, seed, amount):  # type: ignore[no-untyped-def]
    """Multiply rows y0..y1 of uint8 [H, W, 3] by value noise of two octaves around 1, in place."""
    _, w, _ = canvas.shape
    for y in range(y0, y1):
        for x in range(w):
            n = _value(x / size, y / size, seed) + 0.5 * _value(x / size * 3.1, y / size * 3.1, seed + 9) - 0.75
            for c in range(3):
                canvas[y, x, c] = np.uint8(min(255.0, max(0.0, canvas[y, x, c] * (1.0 + amount * n))))


def material(
    pattern: str,
    colour: tuple[int, int, int],
    second: tuple[int, int, int] = (255, 255, 255),
    size: float = 4.0,
    fold: float = 0.0,
    grain: float = 0.0,
) -> NDArray[np.float64]:
    """A material vector: colours 0..255, ``size`` in body units (1 = a hundredth of the body height)."""
    out = [float(PATTERNS.index(pattern)), *colour, *second, size, fold, 0.0, 0.0, grain]
    return np.asarray(out, np.float64)
