# What every script begins with, run before it by r.py: the folder, p, further arguments, and arrays by name.
arguments <- commandArgs(trailingOnly = TRUE)
folder <- arguments[1]
p <- as.integer(arguments[2])
read <- function(name) {
  path <- file.path(folder, paste0(name, ".bin"))
  if (file.exists(path)) readBin(path, "double", file.size(path) / 8) else NULL
}
