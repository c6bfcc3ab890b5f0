// The vector arithmetic below the operations.
#include "kernels/cpu/simd.h"

#include <array>
#include <bit>
#include <cmath>

#include "tests/kernels/kernel_fixture.h"

namespace aurora::kernel_test {
namespace {

using Sixteen = std::array<float, 16>;

struct Exp {
  template <typename L>
  AURORA_INLINE static void run(const float* x, float* y) {
    cpu::exp(L::load(x)).store(y);
  }
};

struct SumLanes {
  template <typename L>
  AURORA_INLINE static void run(const float* x, float* y) {
    const L a = L::load(x);
    const cpu::Float4x sums = cpu::sum_lanes(a, a + a, a, a * 4.0F);
    for (int i = 0; i < 4; ++i) y[i] = sums[i];
    y[4] = cpu::sum_lanes(a);
    y[5] = cpu::max_lane(a);
  }
};

struct RoundToBFloat16 {
  template <typename L>
  AURORA_INLINE static void run(const float* x, std::uint16_t* y, float* back) {
    L::load(x).store_bfloat16(y);
    L::load_bfloat16(y).store(back);
  }
};

struct Partial {
  template <typename L>
  AURORA_INLINE static void run(const float* x, float* y, std::int64_t count) {
    L::load_partial(x, count, 7.0F).store(y);
    L::load_partial(x, count).store_partial(y + 16, count);
  }
};

// The distance between a float32 and an exact value, in units of the exact value's last place.
double ulps_between(float value, double exact) {
  const double magnitude = std::max(std::fabs(exact), 0x1p-126);
  const double ulp = std::ldexp(1.0, std::ilogb(magnitude) - 23);
  return std::fabs(static_cast<double>(value) - exact) / ulp;
}

TEST(Simd, ExpIsWithinTwoUnitsInTheLastPlaceOfTheTrueValue) {
  for_each_isa([](cpu::Isa) {
    double worst = 0;
    // Every 1009th float32 there is, both signs; 1009 is prime, so that all bit patterns of low bits occur.
    for (std::uint64_t bits = 0; bits < (std::uint64_t{1} << 32); bits += 16 * 1009) {
      Sixteen x;
      Sixteen y;
      for (std::uint32_t i = 0; i < 16; ++i) {
        x[i] = std::bit_cast<float>(static_cast<std::uint32_t>(bits) + i * 1009);
      }
      cpu::run_for_active_isa<Exp>(x.data(), y.data());
      for (std::size_t i = 0; i < 16; ++i) {
        const double exact = std::exp(static_cast<double>(x[i]));
        if (!(exact >= 0x1p-126 && exact <= std::numeric_limits<float>::max())) continue;
        worst = std::max(worst, ulps_between(y[i], exact));
      }
    }
    std::cout << "largest error " << worst << " ulp\n";
    EXPECT_LE(worst, 2.0);
  });
}

TEST(Simd, ExpKeepsInfinitiesZeroesAndNaN) {
  for_each_isa([](cpu::Isa) {
    constexpr float kInfinity = std::numeric_limits<float>::infinity();
    const Sixteen x{0.0F,    -0.0F,  kInfinity, -kInfinity, std::nanf(""), 88.722F, 88.73F, 1000.0F,
                    -87.33F, -87.4F, -1000.0F,  3e38F,      -3e38F,        1e-40F,  1.0F,   -1.0F};
    Sixteen y;
    cpu::run_for_active_isa<Exp>(x.data(), y.data());
    EXPECT_EQ(y[0], 1.0F);
    EXPECT_EQ(y[1], 1.0F);
    EXPECT_EQ(y[2], kInfinity);
    EXPECT_EQ(y[3], 0.0F);
    EXPECT_TRUE(std::isnan(y[4]));
    EXPECT_TRUE(std::isfinite(y[5]));
    EXPECT_EQ(y[6], kInfinity);
    EXPECT_EQ(y[7], kInfinity);
    EXPECT_GE(y[8], 0x1p-126F);
    EXPECT_EQ(y[9], 0.0F);
    EXPECT_EQ(y[10], 0.0F);
    EXPECT_EQ(y[11], kInfinity);
    EXPECT_EQ(y[12], 0.0F);
    EXPECT_EQ(y[13], 1.0F);
  });
}

TEST(Simd, SumsOfLanesFollowOneTreeOnEveryInstructionSet) {
  Random random(12);
  for (int trial = 0; trial < 100; ++trial) {
    const std::vector<float> x = random.normals(16);
    std::vector<float> lanes = x;
    for (const std::size_t half : {8U, 4U, 2U, 1U}) {
      for (std::size_t i = 0; i < half; ++i) lanes[i] += lanes[i + half];
    }
    for_each_isa([&](cpu::Isa) {
      std::array<float, 6> y;
      cpu::run_for_active_isa<SumLanes>(x.data(), y.data());
      EXPECT_EQ(y[0], lanes[0]);
      EXPECT_EQ(y[1], 2 * lanes[0]);
      EXPECT_EQ(y[2], lanes[0]);
      EXPECT_EQ(y[3], 4 * lanes[0]);
      EXPECT_EQ(y[4], lanes[0]);
      EXPECT_EQ(y[5], *std::max_element(x.begin(), x.end()));
    });
  }
}

TEST(Simd, RoundingToBFloat16EqualsTheScalarFunction) {
  Random random(13);
  for (int trial = 0; trial < 2000; ++trial) {
    Sixteen x;
    for (float& value : x) value = std::bit_cast<float>(static_cast<std::uint32_t>(random.generator()()));
    for_each_isa([&](cpu::Isa) {
      std::array<std::uint16_t, 16> narrow;
      Sixteen back;
      cpu::run_for_active_isa<RoundToBFloat16>(x.data(), narrow.data(), back.data());
      for (std::size_t i = 0; i < 16; ++i) {
        EXPECT_EQ(narrow[i], float_to_bfloat16(x[i]));
        EXPECT_EQ(std::bit_cast<std::uint32_t>(back[i]),
                  std::bit_cast<std::uint32_t>(bfloat16_to_float(narrow[i])));
      }
    });
  }
}

TEST(Simd, PartialLoadsFillAndPartialStoresStopAtTheCount) {
  Random random(14);
  const std::vector<float> x = random.normals(16);
  for_each_isa([&](cpu::Isa) {
    for (std::int64_t count = 0; count < 16; ++count) {
      std::vector<float> y(32, -1.0F);
      cpu::run_for_active_isa<Partial>(x.data(), y.data(), count);
      for (std::size_t i = 0; i < 16; ++i) {
        const bool inside = static_cast<std::int64_t>(i) < count;
        EXPECT_EQ(y[i], inside ? x[i] : 7.0F);
        EXPECT_EQ(y[16 + i], inside ? x[i] : -1.0F);
      }
    }
  });
}

}  // namespace
}  // namespace aurora::kernel_test
