# Leaves in EXTRAP_CUDA_ARCHS the architectures that the CUDA compiler knows: one of CUDA 12.1 knows no 100 or 120.
if(NOT EXTRAP_CUDA_ARCHS MATCHES "^[0-9]+(;[0-9]+)*$")
  message(FATAL_ERROR "EXTRAP_CUDA_ARCHS is '${EXTRAP_CUDA_ARCHS}'; use compute capabilities without their points, "
    "for example \"80;90\".")
endif()
# Clang does not answer, and gets all of them.
execute_process(COMMAND ${CMAKE_CUDA_COMPILER} --list-gpu-arch
  OUTPUT_VARIABLE known_archs RESULT_VARIABLE failed ERROR_QUIET)
if(NOT failed)
  string(REGEX MATCHALL "[0-9]+" known_archs "${known_archs}")
  set(unknown_archs ${EXTRAP_CUDA_ARCHS})
  list(REMOVE_ITEM unknown_archs ${known_archs})
  if(unknown_archs)
    list(REMOVE_ITEM EXTRAP_CUDA_ARCHS ${unknown_archs})
    message(STATUS "CUDA backend: without ${unknown_archs}, which ${CMAKE_CUDA_COMPILER} does not know")
  endif()
  if(NOT EXTRAP_CUDA_ARCHS)
    message(FATAL_ERROR "${CMAKE_CUDA_COMPILER} knows none of EXTRAP_CUDA_ARCHS=${unknown_archs}. Install a newer CUDA "
      "toolkit, or name some of ${known_archs}.")
  endif()
endif()
