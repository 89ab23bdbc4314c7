# Run when headers are installed: they are included as <qcompile/ROOM/NAME.h>, and include each other so.
#   QC_FROM     the root of the sources
#   QC_HEADERS  paths below it
#   QC_WORK     a folder for the files as they are installed
#   QC_TO       where they go
foreach(header IN LISTS QC_HEADERS)
  file(READ ${QC_FROM}/${header} text)
  string(REGEX REPLACE "#include \"([a-z_]+/[^\"\n]*)\"" "#include <qcompile/\\1>" text "${text}")
  get_filename_component(folder ${header} DIRECTORY)
  file(WRITE ${QC_WORK}/${header} "${text}")
  file(INSTALL ${QC_WORK}/${header} DESTINATION ${QC_TO}/${folder})
endforeach()
