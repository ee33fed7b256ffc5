SELECT t FROM scratch
