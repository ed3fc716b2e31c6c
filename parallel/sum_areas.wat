;; target[i] = area0[i] + area1[i] + …, in this order: areas lie `stride` bytes apart. Four vectors of four f32 a turn, then
;; what is left one by one. Loads of an index come before its store, so the target may be one of the areas.
(module
  (import "group" "memory" (memory 1 65536 shared))
  (func (export "sum") (param $target i32) (param $first i32) (param $stride i32) (param $members i32) (param $bytes i32)
    (local $at i32) (local $left i32) (local $whole i32)
    (local $a v128) (local $b v128) (local $c v128) (local $d v128) (local $one f32)
    (local.set $whole (i32.add (local.get $first) (i32.and (local.get $bytes) (i32.const -64))))
    (block $vectors
      (loop $next
        (br_if $vectors (i32.ge_u (local.get $first) (local.get $whole)))
        (local.set $at (local.get $first))
        (local.set $a (v128.load offset=0 (local.get $at)))
        (local.set $b (v128.load offset=16 (local.get $at)))
        (local.set $c (v128.load offset=32 (local.get $at)))
        (local.set $d (v128.load offset=48 (local.get $at)))
        (local.set $left (i32.sub (local.get $members) (i32.const 1)))
        (block $summed
          (loop $member
            (br_if $summed (i32.eqz (local.get $left)))
            (local.set $at (i32.add (local.get $at) (local.get $stride)))
            (local.set $a (f32x4.add (local.get $a) (v128.load offset=0 (local.get $at))))
            (local.set $b (f32x4.add (local.get $b) (v128.load offset=16 (local.get $at))))
            (local.set $c (f32x4.add (local.get $c) (v128.load offset=32 (local.get $at))))
            (local.set $d (f32x4.add (local.get $d) (v128.load offset=48 (local.get $at))))
            (local.set $left (i32.sub (local.get $left) (i32.const 1)))
            (br $member)))
        (v128.store offset=0 (local.get $target) (local.get $a))
        (v128.store offset=16 (local.get $target) (local.get $b))
        (v128.store offset=32 (local.get $target) (local.get $c))
        (v128.store offset=48 (local.get $target) (local.get $d))
        (local.set $first (i32.add (local.get $first) (i32.const 64)))
        (local.set $target (i32.add (local.get $target) (i32.const 64)))
        (br $next)))
    (local.set $whole (i32.add (local.get $first) (i32.and (local.get $bytes) (i32.const 63))))
    (block $end
      (loop $next
        (br_if $end (i32.ge_u (local.get $first) (local.get $whole)))
        (local.set $at (local.get $first))
        (local.set $one (f32.load (local.get $at)))
        (local.set $left (i32.sub (local.get $members) (i32.const 1)))
        (block $summed
          (loop $member
            (br_if $summed (i32.eqz (local.get $left)))
            (local.set $at (i32.add (local.get $at) (local.get $stride)))
            (local.set $one (f32.add (local.get $one) (f32.load (local.get $at))))
            (local.set $left (i32.sub (local.get $left) (i32.const 1)))
            (br $member)))
        (f32.store (local.get $target) (local.get $one))
        (local.set $first (i32.add (local.get $first) (i32.const 4)))
        (local.set $target (i32.add (local.get $target) (i32.const 4)))
        (br $next)))))
