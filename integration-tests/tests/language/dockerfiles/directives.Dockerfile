# syntax=docker/dockerfile:1.7-labs
# escape=`
# check=skip=all
FROM scratch
ENV PATH_OF=c:\dir\ `
    LAST=1
RUN ["run", "it"]
