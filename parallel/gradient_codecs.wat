;; Numbers in fewer bytes, in blocks of 256: how they are written (…_encode) and how they are added to others (…_add).
;; All pointers are bytes of the memory. A block of values takes 1024 bytes; encoded it takes
;;   int8: f32 scale, 256 int8; the value is scale * integer
;;   f16:  f32 scale (a power of two), 256 f16; the value is scale * f16
;;   bf16: 256 bf16
;; The largest magnitude of a block is found by its bits as integers: infinity is above all numbers, NaN above infinity.
(module
  (import "codec" "memory" (memory 1))

  (func $largest (param $a v128) (result i32)
    (local.set $a (i32x4.max_s (local.get $a) (i8x16.shuffle 8 9 10 11 12 13 14 15 0 1 2 3 4 5 6 7 (local.get $a) (local.get $a))))
    (local.set $a (i32x4.max_s (local.get $a) (i8x16.shuffle 4 5 6 7 0 1 2 3 12 13 14 15 8 9 10 11 (local.get $a) (local.get $a))))
    (i32x4.extract_lane 0 (local.get $a)))

  ;; Values and what was lost before (`residual`), which becomes what is lost now. The scale is the largest magnitude / 127.
  ;; Adding 1.5 * 2^23 rounds to the nearest integer, ties to even, and leaves it in the low bits.
  (func (export "int8_encode") (param $values i32) (param $residual i32) (param $target i32) (param $blocks i32)
    (local $end i32) (local $bits i32) (local $scale f32) (local $largest v128) (local $scales v128) (local $inverse v128)
    (local $a v128) (local $b v128) (local $c v128) (local $d v128)
    (local $qa v128) (local $qb v128) (local $qc v128) (local $qd v128)
    (block $done
      (loop $next
        (br_if $done (i32.eqz (local.get $blocks)))
        (local.set $largest (v128.const i32x4 0 0 0 0))
        (local.set $end (i32.add (local.get $residual) (i32.const 1024)))
        (loop $sum
          (local.set $a (f32x4.add (v128.load offset=0 (local.get $values)) (v128.load offset=0 (local.get $residual))))
          (local.set $b (f32x4.add (v128.load offset=16 (local.get $values)) (v128.load offset=16 (local.get $residual))))
          (v128.store offset=0 (local.get $residual) (local.get $a))
          (v128.store offset=16 (local.get $residual) (local.get $b))
          (local.set $a (v128.and (local.get $a) (v128.const i32x4 0x7fffffff 0x7fffffff 0x7fffffff 0x7fffffff)))
          (local.set $b (v128.and (local.get $b) (v128.const i32x4 0x7fffffff 0x7fffffff 0x7fffffff 0x7fffffff)))
          (local.set $largest (i32x4.max_s (local.get $largest) (i32x4.max_s (local.get $a) (local.get $b))))
          (local.set $values (i32.add (local.get $values) (i32.const 32)))
          (local.set $residual (i32.add (local.get $residual) (i32.const 32)))
          (br_if $sum (i32.lt_u (local.get $residual) (local.get $end))))
        (local.set $residual (i32.sub (local.get $residual) (i32.const 1024)))
        (local.set $bits (call $largest (local.get $largest)))
        ;; From 2^127 on 127 * scale could overflow: as with what is not finite, all of the block is NaN and nothing is kept.
        (if (i32.ge_u (local.get $bits) (i32.const 0x7f000000))
          (then
            (f32.store (local.get $target) (f32.const nan))
            (memory.fill (i32.add (local.get $target) (i32.const 4)) (i32.const 0) (i32.const 256))
            (memory.fill (local.get $residual) (i32.const 0) (i32.const 1024))
            (local.set $residual (local.get $end)))
          (else
            ;; Below 2^-100 the inverse could overflow: all of it is kept for later.
            (if (i32.lt_u (local.get $bits) (i32.const 0x0d800000))
              (then
                (local.set $scale (f32.const 0))
                (local.set $inverse (f32x4.splat (f32.const 0))))
              (else
                (local.set $scale (f32.div (f32.reinterpret_i32 (local.get $bits)) (f32.const 127)))
                (local.set $inverse (f32x4.splat (f32.div (f32.const 127) (f32.reinterpret_i32 (local.get $bits)))))))
            (f32.store (local.get $target) (local.get $scale))
            (local.set $scales (f32x4.splat (local.get $scale)))
            (loop $round
              (local.set $a (v128.load offset=0 (local.get $residual)))
              (local.set $b (v128.load offset=16 (local.get $residual)))
              (local.set $c (v128.load offset=32 (local.get $residual)))
              (local.set $d (v128.load offset=48 (local.get $residual)))
              (local.set $qa (f32x4.add (f32x4.mul (local.get $a) (local.get $inverse)) (v128.const f32x4 12582912 12582912 12582912 12582912)))
              (local.set $qb (f32x4.add (f32x4.mul (local.get $b) (local.get $inverse)) (v128.const f32x4 12582912 12582912 12582912 12582912)))
              (local.set $qc (f32x4.add (f32x4.mul (local.get $c) (local.get $inverse)) (v128.const f32x4 12582912 12582912 12582912 12582912)))
              (local.set $qd (f32x4.add (f32x4.mul (local.get $d) (local.get $inverse)) (v128.const f32x4 12582912 12582912 12582912 12582912)))
              (v128.store offset=4 (local.get $target)
                (i8x16.narrow_i16x8_s
                  (i16x8.narrow_i32x4_s
                    (i32x4.sub (local.get $qa) (v128.const i32x4 0x4b400000 0x4b400000 0x4b400000 0x4b400000))
                    (i32x4.sub (local.get $qb) (v128.const i32x4 0x4b400000 0x4b400000 0x4b400000 0x4b400000)))
                  (i16x8.narrow_i32x4_s
                    (i32x4.sub (local.get $qc) (v128.const i32x4 0x4b400000 0x4b400000 0x4b400000 0x4b400000))
                    (i32x4.sub (local.get $qd) (v128.const i32x4 0x4b400000 0x4b400000 0x4b400000 0x4b400000)))))
              (local.set $qa (f32x4.sub (local.get $qa) (v128.const f32x4 12582912 12582912 12582912 12582912)))
              (local.set $qb (f32x4.sub (local.get $qb) (v128.const f32x4 12582912 12582912 12582912 12582912)))
              (local.set $qc (f32x4.sub (local.get $qc) (v128.const f32x4 12582912 12582912 12582912 12582912)))
              (local.set $qd (f32x4.sub (local.get $qd) (v128.const f32x4 12582912 12582912 12582912 12582912)))
              (v128.store offset=0 (local.get $residual) (f32x4.sub (local.get $a) (f32x4.mul (local.get $qa) (local.get $scales))))
              (v128.store offset=16 (local.get $residual) (f32x4.sub (local.get $b) (f32x4.mul (local.get $qb) (local.get $scales))))
              (v128.store offset=32 (local.get $residual) (f32x4.sub (local.get $c) (f32x4.mul (local.get $qc) (local.get $scales))))
              (v128.store offset=48 (local.get $residual) (f32x4.sub (local.get $d) (f32x4.mul (local.get $qd) (local.get $scales))))
              (local.set $target (i32.add (local.get $target) (i32.const 16)))
              (local.set $residual (i32.add (local.get $residual) (i32.const 64)))
              (br_if $round (i32.lt_u (local.get $residual) (local.get $end))))
            (local.set $target (i32.sub (local.get $target) (i32.const 256)))))
        (local.set $target (i32.add (local.get $target) (i32.const 260)))
        (local.set $blocks (i32.sub (local.get $blocks) (i32.const 1)))
        (br $next))))

  (func (export "int8_add") (param $source i32) (param $target i32) (param $blocks i32)
    (local $end i32) (local $scales v128) (local $q v128) (local $low v128) (local $high v128)
    (block $done
      (loop $next
        (br_if $done (i32.eqz (local.get $blocks)))
        (local.set $scales (v128.load32_splat (local.get $source)))
        (local.set $end (i32.add (local.get $target) (i32.const 1024)))
        (loop $add
          (local.set $q (v128.load offset=4 (local.get $source)))
          (local.set $low (i16x8.extend_low_i8x16_s (local.get $q)))
          (local.set $high (i16x8.extend_high_i8x16_s (local.get $q)))
          (v128.store offset=0 (local.get $target) (f32x4.add (v128.load offset=0 (local.get $target))
            (f32x4.mul (f32x4.convert_i32x4_s (i32x4.extend_low_i16x8_s (local.get $low))) (local.get $scales))))
          (v128.store offset=16 (local.get $target) (f32x4.add (v128.load offset=16 (local.get $target))
            (f32x4.mul (f32x4.convert_i32x4_s (i32x4.extend_high_i16x8_s (local.get $low))) (local.get $scales))))
          (v128.store offset=32 (local.get $target) (f32x4.add (v128.load offset=32 (local.get $target))
            (f32x4.mul (f32x4.convert_i32x4_s (i32x4.extend_low_i16x8_s (local.get $high))) (local.get $scales))))
          (v128.store offset=48 (local.get $target) (f32x4.add (v128.load offset=48 (local.get $target))
            (f32x4.mul (f32x4.convert_i32x4_s (i32x4.extend_high_i16x8_s (local.get $high))) (local.get $scales))))
          (local.set $source (i32.add (local.get $source) (i32.const 16)))
          (local.set $target (i32.add (local.get $target) (i32.const 64)))
          (br_if $add (i32.lt_u (local.get $target) (local.get $end))))
        (local.set $source (i32.add (local.get $source) (i32.const 4)))
        (local.set $blocks (i32.sub (local.get $blocks) (i32.const 1)))
        (br $next))))

  ;; f16 of four f32 below 2^15 in magnitude, to the nearest, ties to even (F. Giesen, "float_to_half_fast3_rtne"): the
  ;; exponent is rebased and half of what is cut off is added; below 2^-14 adding 0.5 aligns and rounds the mantissa.
  (func $half (param $a v128) (result v128)
    (local $sign v128)
    (local.set $sign (v128.and (local.get $a) (v128.const i32x4 0x80000000 0x80000000 0x80000000 0x80000000)))
    (local.set $a (v128.xor (local.get $a) (local.get $sign)))
    (v128.or
      (i32x4.shr_u (local.get $sign) (i32.const 16))
      (v128.bitselect
        (i32x4.sub
          (f32x4.add (local.get $a) (v128.const f32x4 0.5 0.5 0.5 0.5))
          (v128.const i32x4 0x3f000000 0x3f000000 0x3f000000 0x3f000000))
        (i32x4.shr_u
          (i32x4.add
            (i32x4.add (local.get $a) (v128.const i32x4 0xc8000fff 0xc8000fff 0xc8000fff 0xc8000fff))
            (v128.and (i32x4.shr_u (local.get $a) (i32.const 13)) (v128.const i32x4 1 1 1 1)))
          (i32.const 13))
        (i32x4.lt_s (local.get $a) (v128.const i32x4 0x38800000 0x38800000 0x38800000 0x38800000)))))

  ;; The f32 of four finite f16, sign-extended: their bits in the place of f32's, times 2^112 for the other exponent.
  (func $whole (param $a v128) (result v128)
    (f32x4.mul
      (v128.and (i32x4.shl (local.get $a) (i32.const 13)) (v128.const i32x4 0x8fffe000 0x8fffe000 0x8fffe000 0x8fffe000))
      (v128.const i32x4 0x77800000 0x77800000 0x77800000 0x77800000)))

  ;; The scale puts the largest magnitude into 2^14 … 2^15; `residual` is not used.
  (func (export "f16_encode") (param $values i32) (param $residual i32) (param $target i32) (param $blocks i32)
    (local $end i32) (local $bits i32) (local $largest v128) (local $inverse v128)
    (block $done
      (loop $next
        (br_if $done (i32.eqz (local.get $blocks)))
        (local.set $largest (v128.const i32x4 0 0 0 0))
        (local.set $end (i32.add (local.get $values) (i32.const 1024)))
        (loop $look
          (local.set $largest (i32x4.max_s (local.get $largest) (i32x4.max_s
            (v128.and (v128.load offset=0 (local.get $values)) (v128.const i32x4 0x7fffffff 0x7fffffff 0x7fffffff 0x7fffffff))
            (v128.and (v128.load offset=16 (local.get $values)) (v128.const i32x4 0x7fffffff 0x7fffffff 0x7fffffff 0x7fffffff)))))
          (local.set $values (i32.add (local.get $values) (i32.const 32)))
          (br_if $look (i32.lt_u (local.get $values) (local.get $end))))
        (local.set $bits (call $largest (local.get $largest)))
        ;; Not finite: all of the block is NaN.
        (if (i32.ge_u (local.get $bits) (i32.const 0x7f800000))
          (then
            (f32.store (local.get $target) (f32.const nan))
            (memory.fill (i32.add (local.get $target) (i32.const 4)) (i32.const 0) (i32.const 512)))
          (else
            (local.set $values (i32.sub (local.get $values) (i32.const 1024)))
            ;; The biased exponent, at least 15: then neither scale nor inverse is subnormal.
            (local.set $bits (i32.shr_u (local.get $bits) (i32.const 23)))
            (local.set $bits (select (local.get $bits) (i32.const 15) (i32.gt_u (local.get $bits) (i32.const 15))))
            (i32.store (local.get $target) (i32.shl (i32.sub (local.get $bits) (i32.const 14)) (i32.const 23)))
            (local.set $inverse (i32x4.splat (i32.shl (i32.sub (i32.const 268) (local.get $bits)) (i32.const 23))))
            (loop $round
              (v128.store offset=4 (local.get $target) (i16x8.narrow_i32x4_u
                (call $half (f32x4.mul (v128.load offset=0 (local.get $values)) (local.get $inverse)))
                (call $half (f32x4.mul (v128.load offset=16 (local.get $values)) (local.get $inverse)))))
              (local.set $target (i32.add (local.get $target) (i32.const 16)))
              (local.set $values (i32.add (local.get $values) (i32.const 32)))
              (br_if $round (i32.lt_u (local.get $values) (local.get $end))))
            (local.set $target (i32.sub (local.get $target) (i32.const 512)))))
        (local.set $target (i32.add (local.get $target) (i32.const 516)))
        (local.set $blocks (i32.sub (local.get $blocks) (i32.const 1)))
        (br $next))))

  (func (export "f16_add") (param $source i32) (param $target i32) (param $blocks i32)
    (local $end i32) (local $scales v128) (local $h v128)
    (block $done
      (loop $next
        (br_if $done (i32.eqz (local.get $blocks)))
        (local.set $scales (v128.load32_splat (local.get $source)))
        (local.set $end (i32.add (local.get $target) (i32.const 1024)))
        (loop $add
          (local.set $h (v128.load offset=4 (local.get $source)))
          (v128.store offset=0 (local.get $target) (f32x4.add (v128.load offset=0 (local.get $target))
            (f32x4.mul (call $whole (i32x4.extend_low_i16x8_s (local.get $h))) (local.get $scales))))
          (v128.store offset=16 (local.get $target) (f32x4.add (v128.load offset=16 (local.get $target))
            (f32x4.mul (call $whole (i32x4.extend_high_i16x8_s (local.get $h))) (local.get $scales))))
          (local.set $source (i32.add (local.get $source) (i32.const 16)))
          (local.set $target (i32.add (local.get $target) (i32.const 32)))
          (br_if $add (i32.lt_u (local.get $target) (local.get $end))))
        (local.set $source (i32.add (local.get $source) (i32.const 4)))
        (local.set $blocks (i32.sub (local.get $blocks) (i32.const 1)))
        (br $next))))

  ;; The upper halves of four f32, to the nearest, ties to even; NaN stays NaN.
  (func $upper (param $a v128) (result v128)
    (v128.bitselect
      (v128.const i32x4 0x7fc0 0x7fc0 0x7fc0 0x7fc0)
      (i32x4.shr_u
        (i32x4.add
          (i32x4.add (local.get $a) (v128.const i32x4 0x7fff 0x7fff 0x7fff 0x7fff))
          (v128.and (i32x4.shr_u (local.get $a) (i32.const 16)) (v128.const i32x4 1 1 1 1)))
        (i32.const 16))
      (f32x4.ne (local.get $a) (local.get $a))))

  ;; `residual` is not used.
  (func (export "bf16_encode") (param $values i32) (param $residual i32) (param $target i32) (param $blocks i32)
    (local $end i32)
    (local.set $end (i32.add (local.get $values) (i32.mul (local.get $blocks) (i32.const 1024))))
    (block $done
      (loop $next
        (br_if $done (i32.ge_u (local.get $values) (local.get $end)))
        (v128.store (local.get $target) (i16x8.narrow_i32x4_u
          (call $upper (v128.load offset=0 (local.get $values)))
          (call $upper (v128.load offset=16 (local.get $values)))))
        (local.set $values (i32.add (local.get $values) (i32.const 32)))
        (local.set $target (i32.add (local.get $target) (i32.const 16)))
        (br $next))))

  (func (export "bf16_add") (param $source i32) (param $target i32) (param $blocks i32)
    (local $end i32) (local $h v128)
    (local.set $end (i32.add (local.get $target) (i32.mul (local.get $blocks) (i32.const 1024))))
    (block $done
      (loop $next
        (br_if $done (i32.ge_u (local.get $target) (local.get $end)))
        (local.set $h (v128.load (local.get $source)))
        (v128.store offset=0 (local.get $target) (f32x4.add (v128.load offset=0 (local.get $target))
          (i32x4.shl (i32x4.extend_low_i16x8_u (local.get $h)) (i32.const 16))))
        (v128.store offset=16 (local.get $target) (f32x4.add (v128.load offset=16 (local.get $target))
          (i32x4.shl (i32x4.extend_high_i16x8_u (local.get $h)) (i32.const 16))))
        (local.set $source (i32.add (local.get $source) (i32.const 16)))
        (local.set $target (i32.add (local.get $target) (i32.const 32)))
        (br $next)))))
