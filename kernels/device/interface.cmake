# The number of the interface between the program and its library of CUDA kernels: of the text of the
# headers that both are compiled with, so that a program and a library of other builds do not meet,
# whatever changed in an Args struct or in CudaDevice.
#   cmake -DTREE=<source tree> -P kernels/device/interface.cmake    prints it

# In `out` the number, in `headers` what it is made of.
function(cuda_interface tree out headers)
  file(GLOB found ${tree}/kernels/*.h ${tree}/kernels/*/*.h)
  list(FILTER found EXCLUDE REGEX "/kernels/(cpu|cuda|simt|device)/|_tile[.]h$")
  list(SORT found)
  list(APPEND found ${tree}/kernels/device/cuda_device.h ${tree}/core/dtype.h)
  set(hashes "")
  foreach(header ${found})
    get_filename_component(name ${header} NAME)
    file(SHA256 ${header} hash)
    string(APPEND hashes "${name} ${hash}\n")
  endforeach()
  string(SHA256 hash "${hashes}")
  string(SUBSTRING ${hash} 0 16 number)
  set(${out} 0x${number} PARENT_SCOPE)
  set(${headers} ${found} PARENT_SCOPE)
endfunction()

if(CMAKE_SCRIPT_MODE_FILE)
  cuda_interface(${TREE} number headers)
  message(${number})
endif()
