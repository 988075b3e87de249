// mmcv's CUDA kernels of the operators that it has no CPU code for, as loops on the CPU: the reference of the tests.
// They include pytorch_cuda_helper.hpp, which is made here an empty file.
#include <algorithm>
#include <cfloat>
#include <cmath>
#include <cstdint>

using std::exp;
using std::log;
using std::max;
using std::min;
using std::pow;
#define __global__
#define CUDA_1D_KERNEL_LOOP(i, n) for (int i = 0; i < (n); ++i)
template <typename T>
void atomicAdd(T* sum, T value) { *sum += value; }

#include "roi_pool_cuda_kernel.cuh"
#include "sigmoid_focal_loss_cuda_kernel.cuh"
#include "softmax_focal_loss_cuda_kernel.cuh"

#define EXPORT(T, NAME) \
  extern "C" void roi_pool_forward_##NAME(int n, T* input, T* rois, T* output, int* argmax, int ph, int pw, T scale, \
                                          int channels, int height, int width) { \
    roi_pool_forward_cuda_kernel<T>(n, input, rois, output, argmax, ph, pw, scale, channels, height, width); \
  } \
  extern "C" void roi_pool_backward_##NAME(int n, T* grad, T* rois, int* argmax, T* grad_input, int ph, int pw, \
                                           int channels, int height, int width) { \
    roi_pool_backward_cuda_kernel<T>(n, grad, rois, argmax, grad_input, ph, pw, channels, height, width); \
  } \
  extern "C" void sigmoid_focal_loss_forward_##NAME(int n, T* input, int64_t* target, T* weight, T* output, T gamma, \
                                                    T alpha, int classes) { \
    sigmoid_focal_loss_forward_cuda_kernel<T>(n, input, target, weight, output, gamma, alpha, classes); \
  } \
  extern "C" void sigmoid_focal_loss_backward_##NAME(int n, T* input, int64_t* target, T* weight, T* grad, T gamma, \
                                                     T alpha, int classes) { \
    sigmoid_focal_loss_backward_cuda_kernel<T>(n, input, target, weight, grad, gamma, alpha, classes); \
  } \
  extern "C" void softmax_focal_loss_forward_##NAME(int n, T* input, int64_t* target, T* weight, T* output, T gamma, \
                                                    T alpha, int classes) { \
    softmax_focal_loss_forward_cuda_kernel<T>(n, input, target, weight, output, gamma, alpha, classes); \
  } \
  extern "C" void softmax_focal_loss_backward_##NAME(int n, T* input, int64_t* target, T* weight, T* buff, T* grad, \
                                                     T gamma, T alpha, int classes) { \
    softmax_focal_loss_backward_cuda1_kernel<T>(n, input, target, weight, buff, gamma, alpha, classes); \
    softmax_focal_loss_backward_cuda2_kernel<T>(n * classes, input, target, buff, grad, classes); \
  }

EXPORT(float, float)
EXPORT(double, double)
