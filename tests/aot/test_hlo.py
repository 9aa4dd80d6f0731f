"""Traffic counted in HLO text: hand-made programs, and XLA's own count of a program without loops."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from fooddit.aot.hlo import HloError, Program, array_bytes, read_dump, replica_groups
from fooddit.parallel import MeshConfig, make_mesh

LOOP = """\
HloModule m

%cond (p: (s32[], f32[4,256])) -> pred[] {
  %p = (s32[]{:T(128)}, f32[4,256]{1,0:T(8,128)}) parameter(0)
  %i = s32[]{:T(128)} get-tuple-element(%p), index=0
  %n = s32[]{:T(128)} constant(5)
  ROOT %lt = pred[]{:T(512)} compare(%i, %n), direction=LT
}

%slices (a: f32[28,4,256], i: s32[]) -> f32[4,256] {
  %a = f32[28,4,256]{2,1,0:T(8,128)} parameter(0)
  %i.1 = s32[]{:T(128)} parameter(1)
  %zero = s32[]{:T(128)} constant(0)
  ROOT %s = f32[1,4,256]{2,1,0:T(8,128)} dynamic-slice(%a, %i.1, %zero, %zero), dynamic_slice_sizes={1,4,256}
}

%body (q: (s32[], f32[28,4,256])) -> (s32[], f32[28,4,256]) {
  %q = (s32[]{:T(128)}, f32[28,4,256]{2,1,0:T(8,128)}) parameter(0)
  %i.2 = s32[]{:T(128)} get-tuple-element(%q), index=0
  %x = f32[28,4,256]{2,1,0:T(8,128)} get-tuple-element(%q), index=1
  %fusion.1 = f32[1,4,256]{2,1,0:T(8,128)} fusion(%x, %i.2), kind=kLoop, calls=%slices
  %g = f32[8,4,256]{2,1,0:T(8,128)S(1)} all-gather(%fusion.1), replica_groups=[2,8]<=[16], dimensions={0}
  %one = s32[]{:T(128)S(6)} constant(1)
  %next = s32[]{:T(128)S(6)} add(%i.2, %one)
  ROOT %t = (s32[]{:T(128)}, f32[28,4,256]{2,1,0:T(8,128)}) tuple(%next, %x)
}

ENTRY %main (a0: f32[28,4,256]) -> f32[28,4,256] {
  %a0 = f32[28,4,256]{2,1,0:T(8,128)} parameter(0)
  %c = s32[]{:T(128)} constant(0)
  %init = (s32[]{:T(128)}, f32[28,4,256]{2,1,0:T(8,128)}) tuple(%c, %a0)
  %w = (s32[]{:T(128)}, f32[28,4,256]{2,1,0:T(8,128)}) while(%init), condition=%cond, body=%body
  ROOT %r = f32[28,4,256]{2,1,0:T(8,128)} get-tuple-element(%w), index=1
}
"""
SLICE = 4 * 4 * 256


def test_a_loop_counts_as_often_as_it_runs_and_a_slice_as_what_it_takes():
    program = Program(LOOP)
    # Each trip reads a slice of x, writes it, reads it again, and its number (4 bytes) twice; the result is in VMEM.
    assert program.hbm_bytes() == 5 * (SLICE + 4 + SLICE + SLICE + 4)
    [gather] = program.collectives()
    assert (gather.kind, gather.payload, gather.trips) == ("all-gather", 8 * SLICE, 5)
    assert gather.sent == 5 * 8 * SLICE * 7 / 8
    assert gather.groups == (tuple(range(8)), tuple(range(8, 16)))


def test_a_collective_that_runs_beside_fusions_is_one():
    start = "  %g = f32[8,4,256]{2,1,0:T(8,128)S(1)} all-gather(%fusion.1), channel_id=3, replica_groups=[2,8]<=[16]"
    again = start.replace("%g =", "%h =")
    plain = "  %g = f32[8,4,256]{2,1,0:T(8,128)S(1)} all-gather(%fusion.1), replica_groups=[2,8]<=[16], dimensions={0}"
    assert len(Program(LOOP.replace(plain, f"{start}\n{again}")).collectives()) == 1
    assert (
        len(Program(LOOP.replace(plain, f"{start}\n{again.replace('channel_id=3', 'channel_id=4')}")).collectives())
        == 2
    )


def test_a_collective_handed_to_a_sparse_core_is_counted():
    called = """\
%handed (s: f32[1,4,256]) -> f32[8,4,256] {
  %s = f32[1,4,256]{2,1,0:T(8,128)} parameter(0)
  ROOT %g = f32[8,4,256]{2,1,0:T(8,128)} all-gather(%s), channel_id=1, replica_groups=[2,8]<=[16], dimensions={0}
}

%started (s.1: f32[1,4,256]) -> f32[8,4,256] {
  %s.1 = f32[1,4,256]{2,1,0:T(8,128)} parameter(0)
  ROOT %c.1 = f32[8,4,256]{2,1,0:T(8,128)} custom-call(%s.1), called_computations={%handed}
}

%body ("""
    plain = "  %g = f32[8,4,256]{2,1,0:T(8,128)S(1)} all-gather(%fusion.1), replica_groups=[2,8]<=[16], dimensions={0}"
    start = (
        "  %a = ((f32[1,4,256]{2,1,0:T(8,128)}), f32[8,4,256]{2,1,0:T(8,128)}, u32[]{:S(8)}) async-start(%fusion.1), "
        'async_execution_thread="sparsecore", calls=%started'
    )
    assert plain in LOOP
    program = Program(LOOP.replace("%body (", called).replace(plain, start))
    [gather] = program.collectives()
    assert (gather.kind, gather.payload, gather.trips) == ("all-gather", 8 * SLICE, 5)
    # What the start reads and writes lies in HBM: nine slices, in place of the one that was read for a result in VMEM.
    assert program.hbm_bytes() == Program(LOOP).hbm_bytes() + 5 * 8 * SLICE


def test_what_crosses_slices_goes_through_the_hosts():
    send = (
        "  %s = (f32[28,4,256]{2,1,0:T(8,128)}, u32[], token[]) send(%a0, %c), channel_id=8, is_host_transfer=true, "
        'frontend_attributes={_xla_megascale_target="{1,2}x{0:3}",_xla_megascale_transfer_type="ALL_REDUCE"}'
    )
    text = LOOP.replace("  %init =", f"{send}\n  %init =")
    [crossing] = [c for c in Program(text).collectives() if c.kind.startswith("network")]
    assert crossing.kind == "network all-reduce" and crossing.sent == 28 * SLICE


def test_permutations_of_two_arrays_that_share_a_channel_are_two():
    both = "".join(
        f"  %p{i} = (f32[28,4,256]{{2,1,0}}, f32[28,4,256]{{2,1,0}}, u32[], u32[]) collective-permute-start(%a0), "
        f"channel_id=1, source_target_pairs={{{{0,1}},{{1,0}}}}\n"
        for i in range(2)
    )
    text = LOOP.replace("  %init =", f"{both}  %init =")
    found = [c for c in Program(text).collectives() if c.kind == "collective-permute"]
    assert [c.sent for c in found] == [28 * SLICE] * 2


def test_a_loop_may_count_by_twos_from_one():
    by_twos = LOOP.replace("%one = s32[]{:T(128)S(6)} constant(1)", "%one = s32[]{:T(128)S(6)} constant(2)")
    assert Program(by_twos).collectives()[0].trips == 3
    from_one = by_twos.replace("%c = s32[]{:T(128)} constant(0)", "%c = s32[]{:T(128)} constant(1)")
    assert Program(from_one).collectives()[0].trips == 2


@pytest.mark.parametrize(
    "line, other, message",
    [
        ("s32[]{:T(128)} constant(5)", "s32[]{:T(128)} iota()", r"condition is not a counter below a constant: \[\]"),
        ("add(%i.2, %one)", "multiply(%i.2, %one)", "counts from 0 by None"),
        ("%c = s32[]{:T(128)} constant(0)", "%c = s32[]{:T(128)} iota()", "counts from None by 1"),
    ],
)
def test_a_loop_of_unknown_trips_is_refused(line, other, message):
    assert line in LOOP
    with pytest.raises(HloError, match=f"loop w in main: .*{message}"):
        Program(LOOP.replace(line, other)).hbm_bytes()


def test_a_slice_taken_by_a_fusion_within_a_fusion_counts_as_a_slice():
    outer = """\
%outer (b: f32[28,4,256], j: s32[]) -> f32[4,256] {
  %b = f32[28,4,256]{2,1,0:T(8,128)} parameter(0)
  %j = s32[]{:T(128)} parameter(1)
  %view = f32[28,4,256]{2,1,0:T(8,128)} bitcast(%b)
  %inner = f32[1,4,256]{2,1,0:T(8,128)} fusion(%view, %j), kind=kLoop, calls=%slices
  ROOT %n = f32[1,4,256]{2,1,0:T(8,128)} negate(%inner)
}

%body ("""
    nested = LOOP.replace("%body (", outer).replace("kind=kLoop, calls=%slices\n  %g", "kind=kLoop, calls=%outer\n  %g")
    assert nested != LOOP and Program(nested).hbm_bytes() == Program(LOOP).hbm_bytes()
    # A view of the whole, taken by an operation that is no slice, is read whole.
    whole = nested.replace("ROOT %n = f32[1,4,256]{2,1,0:T(8,128)} negate(%inner)",
                           "ROOT %n = f32[1,4,256]{2,1,0:T(8,128)} reduce(%view)")  # fmt: skip
    assert Program(whole).hbm_bytes() == Program(LOOP).hbm_bytes() + 5 * 27 * SLICE


def test_of_a_conditional_the_branch_that_moves_most_is_counted():
    branches = """\
%small (c: f32[4,256]) -> f32[4,256] {
  ROOT %c = f32[4,256]{1,0:T(8,128)} parameter(0)
}

%large (d: f32[4,256]) -> f32[4,256] {
  %d = f32[4,256]{1,0:T(8,128)} parameter(0)
  ROOT %e = f32[4,256]{1,0:T(8,128)} negate(%d)
}

ENTRY %main (a: f32[4,256], p: pred[]) -> f32[4,256] {
  %a = f32[4,256]{1,0:T(8,128)} parameter(0)
  %p = pred[]{:T(512)} parameter(1)
  %room = f32[28,4,256]{2,1,0:T(8,128)} custom-call(), custom_call_target="AllocateBuffer"
  ROOT %f = f32[4,256]{1,0:T(8,128)} conditional(%p, %a, %a), BRANCHES
}
"""
    for text in ("branch_computations={%small, %large}", "true_computation=%large, false_computation=%small"):
        program = Program("HloModule m\n\n" + branches.replace("BRANCHES", text))
        assert program.hbm_bytes() == 2 * SLICE
        assert [i.opcode for _, i, _ in program.scheduled()][-1] == "negate"


def test_a_dump_of_no_or_two_programs_is_refused(tmp_path):
    with pytest.raises(HloError, match="0 programs were dumped"):
        read_dump(tmp_path)
    (tmp_path / "module_0000.step.after_optimizations.txt").write_text(LOOP)
    assert read_dump(tmp_path).hbm_bytes() == Program(LOOP).hbm_bytes()
    (tmp_path / "module_0001.step.after_optimizations.txt").write_text(LOOP)
    with pytest.raises(HloError, match="2 programs were dumped"):
        read_dump(tmp_path)


@pytest.mark.parametrize(
    "text, groups",
    [
        ("replica_groups={{0,2},{1,3}}", ((0, 2), (1, 3))),
        ("replica_groups=[2,2]<=[4]", ((0, 1), (2, 3))),
        ("replica_groups=[2,2]<=[2,2]T(1,0)", ((0, 2), (1, 3))),
        ("replica_groups=mesh['a'=2,'b'=2] {'a'}", ((0, 2), (1, 3))),
        ("replica_groups=mesh['a'=2,'b'=2] {'b'}", ((0, 1), (2, 3))),
        ("source_target_pairs={{0,1},{1,0}}", ((0, 1), (1, 0))),
    ],
)
def test_groups_in_every_notation(text, groups):
    assert replica_groups(f"channel_id=1, {text}, dimensions={{0}}") == groups


def test_bytes_of_shapes():
    assert array_bytes("(f32[2,3]{1,0:T(8,128)}, bf16[4]{0:T(256)S(1)}, pred[], s4[6])") == 24 + 8 + 1 + 3
    assert array_bytes("(f32[2,3]{1,0:T(8,128)}, bf16[4]{0:T(256)S(1)})", hbm=True) == 24


def test_equals_xlas_own_count_where_there_is_no_loop():
    compiled = jax.jit(lambda a, b: jnp.tanh(a @ b).sum(axis=0)).lower(*[jnp.ones((256, 256))] * 2).compile()
    expected = compiled.cost_analysis()["bytes accessed"]
    assert Program(compiled.as_text()).hbm_bytes() == pytest.approx(expected, rel=0.02)


def test_collectives_of_a_compiled_program():
    mesh = make_mesh(MeshConfig(data=-1), jax.devices()[:4])
    rows = NamedSharding(mesh, PartitionSpec("data"))
    x = jax.ShapeDtypeStruct((64, 128), jnp.float32, sharding=rows)
    whole = NamedSharding(mesh, PartitionSpec())
    text = jax.jit(lambda x: x.sum(axis=0), out_shardings=whole).lower(x).compile().as_text()
    [reduced] = Program(text).collectives()
    assert (reduced.kind, reduced.payload, reduced.sent) == ("all-reduce", 512, 768)
