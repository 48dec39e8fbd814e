/* Built with
     clang-22 -target amdgcn-amd-amdhsa -mcpu=gfx1151 -nogpulib -O3 axpy.c -o axpy.co
     llvm-strip-22 --strip-debug axpy.co */
__attribute__((amdgpu_kernel)) void axpy(int n, float a, const float __attribute__((address_space(1))) *x, float __attribute__((address_space(1))) *y) {
  int i = __builtin_amdgcn_workgroup_id_x() * __builtin_amdgcn_workgroup_size_x() + __builtin_amdgcn_workitem_id_x();
  if (i < n) y[i] = a * x[i] + y[i];
}
